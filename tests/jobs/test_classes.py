"""Mirrors cdm_cli/jobs/classes.py."""

import numpy as np
import pytest

from cdm_cli.errors import UsageError
from cdm_cli.jobs.classes import labels_of, parse_classes, sample_count

NAMES = ("tench, Tinca tinca", "goldfish", "great white shark", "crane", "crane, bird", "7", "a-b")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (None, (0, 1, 2, 3, 4, 5, 6)),
        ("0-2,5", (0, 1, 2, 5)),
        ("3, 1-2 ,0", (3, 1, 2, 0)),
        ("1,0-2,1", (1, 0, 2)),
        ("tench", (0,)),
        ("tench, Tinca tinca", (0,)),
        ("tench,Tinca tinca,goldfish", (0, 1)),
        ('"tench, Tinca tinca",3', (0, 3)),
        ("great white shark,GOLDFISH", (2, 1)),
        ("crane", (3,)),
        ("crane, bird", (4,)),
        ('"7"', (5,)),
        ("a-b", (6,)),
    ],
)
def test_ids_ranges_and_names(text, ids):
    assert parse_classes(text, NAMES) == ids


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7", "0-6"),
        ("5-9", "0-6"),
        ("4-2", "runs down"),
        ("goldfihs", "'goldfish'"),
        ('"5"', "no class has this name"),
        (" , ", "empty"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(text, says):
    with pytest.raises(UsageError, match=says):
        parse_classes(text, NAMES)


def test_a_first_synonym_of_two_classes_is_refused():
    with pytest.raises(UsageError, match="crane"):
        parse_classes("crane", ("crane, bird", "crane, machine"))


def test_every_prefix_is_balanced():
    labels = labels_of(np.arange(50), (4, 0, 9))
    for num in range(1, 51):
        counts = np.bincount(labels[:num], minlength=10)[[4, 0, 9]]
        assert counts.max() - counts.min() <= 1
    assert labels[:4].tolist() == [4, 0, 9, 4]


def test_counts():
    assert sample_count(None, None, 3) == 30
    assert sample_count(17, None, 3) == 17
    assert sample_count(None, 5, 3) == 15
    with pytest.raises(UsageError, match="exclude"):
        sample_count(17, 5, 3)
