"""Mirrors cdm_cli/data/class_folders.py."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdm_cli.data.class_folders import LONGEST, name_files, name_folders, read_numbers
from cdm_cli.data.listing import is_junk

RESERVED = ("classes.json", "__MACOSX")


@pytest.mark.parametrize("name", ["disk", "tench, Tinca tinca", "naïve", "鯉", "a.b", "it's (1)"])
def test_ordinary_names_stay(name):
    assert name_folders([name]) == [name]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("", "%"),
        ("a/b\\c", "a%2Fb%5Cc"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("a\nb\0c", "a%0Ab%00c"),
        ("100%", "100%25"),
        (".hidden", "%2Ehidden"),
        ("-rf", "%2Drf"),
        ("end. ", "end.%20"),
        ("CON", "%43ON"),
        ("nul.txt", "%6Eul.txt"),
        ("Classes.JSON", "%43lasses.JSON"),
        ("__MACOSX", "%5F_MACOSX"),
        ("a:b*?", "a%3Ab%2A%3F"),
    ],
)
def test_hostile_names_are_escaped(name, folder):
    assert name_folders([name], RESERVED) == [folder]


def test_names_that_a_file_system_cannot_tell_apart():
    names = name_folders(["Disk", "disk", "disk", "é", "e\u0301"])
    assert names[:3] == ["Disk", "disk~1", "disk~2"]
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == 5


def test_long_names_differ_still():
    names = name_folders(["x" * 4000, "x" * 4001, "鯉" * 1000])
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= LONGEST for name in names)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8))
def test_any_names_become_safe_and_distinct(names):
    folders = name_folders(names, RESERVED)
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in folders}) == len(names)
    for folder in folders:
        assert folder not in ("", ".", "..")
        assert folder.isprintable()
        assert not set(folder) & set('/\\:*?"<>|\0')
        assert not is_junk(folder)
        assert folder.casefold() not in {name.casefold() for name in RESERVED}
        assert folder[-1] not in ". "


@pytest.mark.parametrize(
    "ids", [[0, 1, 2], [5, 70, 10**9], [3, 1, 2], [4, 4, 4], [-5, 0, 1], [2, -1], [7], []]
)
def test_ids_come_back_in_order_from_shuffled_names(ids):
    stems = name_files(np.array(ids, np.int64))
    assert len(set(stems)) == len(ids)
    mixed = np.random.default_rng(0).permutation(len(ids))
    found = read_numbers([stems[i] for i in mixed])
    if not ids:
        assert found is None
        return
    assert mixed[found.order].tolist() == list(range(len(ids)))
    assert found.ids[found.order].tolist() == ids


@pytest.mark.parametrize(
    "stems", [["1", "01"], ["1", "x"], ["1", "00000002-id3"], ["1" * 19], ["0-id1", "00-id2"], [""]]
)
def test_names_that_tell_no_ids(stems):
    assert read_numbers(stems) is None
