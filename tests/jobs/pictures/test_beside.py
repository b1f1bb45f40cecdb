"""Mirrors cdm_cli/jobs/pictures/beside.py: one id in each row, whichever place it has."""

import numpy as np
import pytest

from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.pictures.beside import lay_side_by_side, name_column, spread_over_classes
from cdm_cli.jobs.pictures.shown import choose_shown
from tests.tiny import CLASSES, Told, write_store


def arrays(ids, side, *, channels=3, labels=None):
    """Image of id i is grey, of value i."""
    ids = np.asarray(ids)
    images = np.tile(ids.astype(np.uint8).reshape(-1, 1, 1, 1), (1, side, side, channels))
    labels = ids % 3 if labels is None else np.asarray(labels)
    return {
        f"images/{side}": images,
        "ids": ids.astype(np.int64),
        "labels": labels.astype(np.int64),
    }


@pytest.fixture
def laid(tmp_path):
    """Return what lays stores out side by side, and the grey values that it shows."""
    opened = []

    def lay(*parts, num=3, **changes):
        found = []
        for number, part in enumerate(parts):
            path = write_store(
                tmp_path / f"{len(opened)}-{number}.h5", "samples", {"": part}, block_size=4
            )
            opened.append(open_store(path))
            found.append(choose_shown(opened[-1], None, None, Told()))
        sheet = lay_side_by_side(found, ["x"] * len(found), num=num, **changes)
        return sheet, [[int(sheet.tiles[at][-1, -1, 0]) for at in row] for _, row in sheet.rows]

    yield lay
    for store in opened:
        store.close()


def test_a_row_is_the_same_id_of_every_store(laid):
    sheet, values = laid(arrays([9, 4, 1, 3, 2, 8], 2), arrays([1, 2, 3, 4, 5], 8))
    assert values == [[3, 3], [1, 1], [2, 2]]
    assert [name for name, _ in sheet.rows] == [f"{CLASSES[id % 3]} ({id})" for id in (3, 1, 2)]
    assert {tile.shape for tile in sheet.tiles.values()} == {(8, 8, 3)}
    assert sheet.title == "the same 3 ids of 2 stores"


def test_some_of_each_class_stand_in_its_row(laid):
    sheet, values = laid(arrays(range(11), 4), arrays(range(11), 8), per_class=4)
    assert values == [[0, 0, 3, 3, 6, 6, 9, 9], [1, 1, 4, 4, 7, 7, 10, 10], [2, 2, 5, 5, 8, 8]]
    assert [name for name, _ in sheet.rows] == list(CLASSES[:3])
    assert (sheet.heads, sheet.together) == (("x",) * 8, 2)
    assert sheet.title == "the same 11 ids of 2 stores"


def test_gray_beside_colour_is_shown_in_colour(laid):
    sheet, _ = laid(arrays(range(3), 4, channels=1), arrays(range(3), 4))
    assert {tile.shape for tile in sheet.tiles.values()} == {(4, 4, 3)}
    sheet, _ = laid(arrays(range(3), 4, channels=1), arrays(range(3), 4, channels=1))
    assert {tile.shape for tile in sheet.tiles.values()} == {(4, 4, 1)}


def test_stores_of_other_images_are_refused(laid):
    with pytest.raises(MismatchError, match="have no image of the same id"):
        laid(arrays([1, 2], 4), arrays([3, 4], 4))
    with pytest.raises(
        MismatchError, match=r"id 2 is 'tench, Tinca tinca' in .* and 'disk' in .*not the same"
    ):
        laid(arrays([1, 2], 4), arrays([1, 2], 4, labels=[1, 0]))


def test_a_head_says_at_which_s(tmp_path):
    def head(name, identity):
        path = write_store(
            tmp_path / f"{name}.h5",
            "samples",
            {"": arrays([1], 4)},
            provenance={"identity": identity},
        )
        with open_store(path) as store:
            return name_column(store, 4)

    up = {"command": "upsample", "s": 5, "augment": "non-truncated"}
    assert head("a", up) == "a\ns = 5"
    assert head("b", up | {"augment": "truncated"}) == "b\ns = 5 truncated"
    assert head("c", {"command": "sample"}) == head("c2", 7).replace("c2", "c") == "c\n4×4"


@pytest.mark.parametrize(
    ("labels", "num", "places"),
    [
        ([0, 0, 0, 1, 1, 2], 3, [0, 3, 5]),
        ([2, 1, 0, 2, 1, 0], 4, [2, 5, 1, 0]),
        ([0, 0, 0, 0, 1], 4, [0, 1, 2, 4]),
        ([5, 6, 7, 8, 9], 3, [0, 2, 4]),
        ([3, 3], 9, [0, 1]),
    ],
)
def test_images_are_of_as_many_classes_as_possible(labels, num, places):
    assert spread_over_classes(np.array(labels), num).tolist() == places
