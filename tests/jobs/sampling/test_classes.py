"""Mirrors cdm_cli/jobs/sampling/classes.py."""

import re

import numpy as np
import pytest

from cdm_cli.errors import UsageError
from cdm_cli.jobs.sampling.classes import (
    assign_labels,
    count_samples,
    describe_empty,
    find_empty_classes,
    parse_classes,
    reduce_counts,
)
from cdm_cli.options.sampling import SampleOptions
from tests.asking import as_typed

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
        ("7", (5,)),  # no id, so it can only be the name
    ],
)
def test_ids_ranges_and_names(text, ids):
    assert parse_classes(text, NAMES) == ids


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8", "0-6"),
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


@pytest.mark.parametrize(
    ("names", "text", "says"),
    [
        (["2", "3", "10"], "2", "2 is the name of class 0, and as an id it is class '10'"),
        (["2", "3", "10"], "1-2", "2 is the name of class 0"),
        ([str(k) for k in range(1, 13)], "2-4", "2 is the name of class 1, and as an id .* '3'"),
        (["a", "b", "c", "d", "e", "2-4"], "2-4", "2-4 is the name of class 5, and .* class 'c'"),
    ],
)
def test_what_is_an_id_and_the_name_of_another_class_is_refused(names, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse_classes(text, names)
    quoted = re.findall('"[^"]*"', caught.value.next)
    assert len({parse_classes(word, names) for word in quoted}) == 2


def test_numbers_that_are_their_own_ids_or_no_ids_are_taken():
    names = ["007", "10", "1e3", "2-4"]
    assert [parse_classes(name, names) for name in names] == [(0,), (1,), (2,), (3,)]
    assert parse_classes("0-2", names) == (0, 1, 2)
    assert parse_classes("1-3,0", ["0", "1", "2", "3"]) == (1, 2, 3, 0)


def test_classes_without_images_are_left_out_and_refused_by_name():
    assert parse_classes(None, NAMES, (0, 4)) == (1, 2, 3, 5, 6)
    assert parse_classes("1-3", NAMES, (0, 4)) == (1, 2, 3)
    for text in ("0-3", "tench", '"crane, bird",1'):
        with pytest.raises(UsageError, match="1 of 7 classes without an image: '"):
            parse_classes(text, NAMES, (0, 4))
    line = describe_empty([str(k) for k in range(900)], range(1, 800))
    assert line.startswith("799 of 900 classes without an image: '1' (id 1), ")
    assert len(line) < 120


def test_labels_tell_which_classes_are_empty():
    assert find_empty_classes(np.array([3, 1, 3]), 5) == (0, 2, 4)
    assert find_empty_classes(np.array([10**15, 0]), 1) == ()


def test_a_first_synonym_of_two_classes_is_refused():
    with pytest.raises(UsageError, match="crane"):
        parse_classes("crane", ("crane, bird", "crane, machine"))


def test_a_name_of_two_lines_may_be_typed_as_it_is_shown():
    names = ("disk", "two\nlines", "plain")
    for typed in ("two\nlines", r"two\nlines"):
        assert parse_classes(typed, names) == (1,)


def test_every_prefix_is_balanced():
    labels = assign_labels(np.arange(50), (4, 0, 9))
    for num in range(1, 51):
        counts = np.bincount(labels[:num], minlength=10)[[4, 0, 9]]
        assert counts.max() - counts.min() <= 1
    assert labels[:4].tolist() == [4, 0, 9, 4]


def test_counts():
    assert count_samples(None, None, 3) == 30
    assert count_samples(17, None, 3) == 17
    assert count_samples(None, 5, 3) == 15
    with pytest.raises(UsageError, match="exclude"):
        as_typed(SampleOptions, num=17, per_class=5)


def test_samples_have_the_counts_of_classes_and_prefixes_nearly_their_shares():
    counts = np.array([1, 5, 3])
    labels = assign_labels(np.arange(18), (4, 2, 7), tuple(counts.tolist()))
    assert [int((labels == label).sum()) for label in (4, 2, 7)] == [2, 10, 6]
    assert labels[:9].tolist() == labels[9:].tolist()
    for num in range(1, 19):
        there = np.array([(labels[:num] == label).sum() for label in (4, 2, 7)])
        assert np.abs(there - num * counts / 9).max() < 1


def test_equal_counts_are_those_of_interleaved_classes():
    assert reduce_counts((5000, 5000)) == ()
    assert reduce_counts((6, 4, 2)) == (3, 2, 1)
    ids = np.arange(12)
    assert (
        assign_labels(ids, (3, 1, 2), (1, 1, 1)).tolist() == assign_labels(ids, (3, 1, 2)).tolist()
    )
