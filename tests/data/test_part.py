"""Mirrors cdm_cli/data/part.py."""

import os

import numpy as np
import pytest

from cdm_cli.data.part import Part
from cdm_cli.data.store import create, open_store
from cdm_cli.errors import BadInputError, MissingError
from tests.data.stores import CLASSES, arrays_of, fill, filled, flip, prepared_spec, samples_spec


@pytest.fixture
def path(tmp_path):
    return filled(tmp_path / "a.h5", samples_spec())


@pytest.fixture
def part(path):
    with open_store(path) as store:
        yield store.parts[""]


def offset(part, name, row):
    return part._opened.layout.offsets[name] + row * part.members[name].row_bytes


def test_what_there_is(part):
    assert (part.resolutions, part.count_channels(8), part.z_times) == ([8], 3, [3, 12])
    assert part.labels.tolist() == [row % len(CLASSES) for rows in (8, 8, 4) for row in range(rows)]
    assert part.ids.tolist() == list(range(20))
    assert (part.images(8).shape, part.z(12).shape) == ((20, 8, 8, 3), (20, 4, 4, 3))


def test_maps_show_the_bytes_and_cannot_change_them(part):
    for b in range(3):
        rows = part.list_rows(b)
        for name, array in arrays_of(part, b).items():
            np.testing.assert_array_equal(part.map_member(name)[rows.start : rows.stop], array)
    with pytest.raises(ValueError, match="read-only"):
        part.images(8)[0] = 0


def test_checked_reads_find_a_changed_byte(path, part):
    flip(path, offset(part, "images/8", 9))
    assert part.read_checked(0)["ids"].tolist() == list(range(8))
    with pytest.raises(BadInputError, match=r"a\.h5: samples 8\.\.15 do not have the digest"):
        part.read_checked(1)


def test_the_error_names_the_part(tmp_path):
    path = filled(tmp_path / "b.h5", prepared_spec())
    with open_store(path) as store:
        val = store.parts["val"]
        flip(path, val._opened.layout.offsets["val/labels"])
        with pytest.raises(BadInputError, match=r"samples 0\.\.5 of val do not"):
            val.read_checked(0)


def overwrite(path, place, data):
    """Change bytes of a file in place, at another time than all that came before."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def test_who_reads_a_map_checks_each_block_once_before(path, part, monkeypatch):
    rows, checked, real = np.array([17, 0, 5, 16]), [], Part.check_block
    noted = lambda self, b: bool(checked.append(b)) or real(self, b)  # noqa: E731
    monkeypatch.setattr(Part, "check_block", noted)
    part.check(rows)
    part.check(rows)
    assert sorted(checked) == [0, 2]
    flip(path, offset(part, "images/8", 9))
    part.check(rows)
    for _ in range(2):
        with pytest.raises(BadInputError, match=r"samples 8\.\.15 do not have the digest"):
            part.check(np.array([1, 9]))
    assert sorted(checked) == [0, 1, 1, 2]


def test_a_block_that_means_nothing_is_not_read_through_a_map_either(tmp_path):
    with create(tmp_path / "b.h5", samples_spec(num=8)) as store:
        part = store.parts[""]
        wrong = {**arrays_of(part, 0), "labels": np.arange(8)}
        part.put_block(0, wrong)
        with pytest.raises(BadInputError, match=r"samples 0\.\.7 have labels outside 0\.\.3"):
            part.check(np.array([0]))
        with pytest.raises(BadInputError, match=r"samples have labels outside 0\.\.3"):
            part.labels  # noqa: B018
        with pytest.raises(BadInputError, match="the first is 7"):
            part.read_labels(np.array([1, 7, 2]))
        assert part.read_labels(np.array([1, 2])).tolist() == [1, 2]


def test_what_was_read_is_checked_again_where_the_file_was_touched(path, part, monkeypatch):
    checked, real = [], Part.check_block
    noted = lambda self, b: bool(checked.append(b)) or real(self, b)  # noqa: E731
    monkeypatch.setattr(Part, "check_block", noted)
    part.check(np.array([0, 16]))
    part.recheck()
    assert sorted(checked) == [0, 2], "nothing is read while nobody touched the file"
    overwrite(path, 0, b"\x89")
    part.recheck()
    part.recheck()
    assert sorted(checked) == [0, 0, 2, 2]
    overwrite(path, offset(part, "images/8", 3), b"new bytes")
    with pytest.raises(BadInputError, match=r"samples 0\.\.7 do not have the digest"):
        part.recheck()


def test_another_store_written_over_the_one_that_is_read_is_noticed(tmp_path, path, part):
    """All of its digests are right, but they are others."""
    with create(tmp_path / "other.h5", samples_spec()) as other:
        fill(other, seed=1)
    part.check(np.array([0]))
    overwrite(path, 0, (tmp_path / "other.h5").read_bytes())
    with pytest.raises(BadInputError, match="changed while it was read"):
        part.recheck()
    with pytest.raises(BadInputError, match=r"samples 8\.\.15 do not have the digest"):
        part.check(np.array([8]))


def test_a_file_cut_short_is_an_error_and_not_the_end_of_the_process(path, part):
    """A page of a map that lies behind the end of its file kills whoever touches it: SIGBUS."""
    os.truncate(path, path.stat().st_size // 2)
    for read in (
        lambda: part.check(np.array([0])), part.recheck, lambda: part.images(8),
        lambda: part.labels, lambda: part.ids,
    ):  # fmt: skip
        with pytest.raises(BadInputError, match=r"a\.h5 became shorter"):
            read()


def test_a_file_cut_short_once_it_was_seen_to_be_whole_is_no_map(path, part, monkeypatch):
    monkeypatch.setattr(Part, "_require_whole", lambda self: os.truncate(path, 4096))
    with pytest.raises(BadInputError, match=r"a\.h5 became shorter"):
        part.images(8)


def test_unfinished_blocks_are_not_handed_out(tmp_path):
    with create(tmp_path / "b.h5", samples_spec()) as store:
        part = store.parts[""]
        part.write_block(0, arrays_of(part, 0))
        part.read_checked(0)
        part.require_finished(range(1))
        for attempt in (lambda: part.read_checked(1), part.require_finished):
            with pytest.raises(MissingError, match=r"2 of 3 blocks") as caught:
                attempt()
            assert caught.value.next == "cdm sample base", "the command of its provenance"


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("labels", np.array([0, 1, 2, 3, 4, 0, 0, 0]), "labels outside 0..3, the first is 4"),
        ("labels", np.array([0, 1, 2, 3, -1, 0, 0, 0]), "the first is -1"),
        ("z/3", np.full((8, 4, 4, 3), np.nan, np.float16), "z/3 that are not finite"),
        ("z/12", np.full((8, 4, 4, 3), np.inf, np.float16), "z/12 that are not finite"),
    ],
)
def test_what_means_nothing_is_neither_written_nor_read(tmp_path, name, wrong, says):
    with create(tmp_path / "b.h5", samples_spec()) as store:
        part = store.parts[""]
        block = {**arrays_of(part, 0), name: wrong}
        with pytest.raises(ValueError, match=says):
            part.write_block(0, block)
        assert part.list_missing() == [0, 1, 2]
        part.put_block(0, block)  # as a stranger would, digest and all
        with pytest.raises(BadInputError, match=says):
            part.read_checked(0)


def test_labels_mean_themselves_where_there_are_no_classes(tmp_path):
    with create(tmp_path / "b.h5", samples_spec(classes=())) as store:
        part = store.parts[""]
        part.write_block(0, {**arrays_of(part, 0), "labels": np.arange(8) + 1000})
        assert part.read_checked(0)["labels"][0] == 1000


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ids", None),
        ("more", np.zeros(8)),
        ("ids", np.zeros(8, np.int32)),
        ("ids", np.zeros(7, np.int64)),
        ("images/8", np.zeros((8, 3, 8, 8), np.uint8)),
        ("images/8", np.zeros((8, 8, 8, 3), np.float32)),
        ("z/3", np.zeros((8, 4, 4, 3), np.float32)),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, name, wrong):
    with create(tmp_path / "b.h5", samples_spec()) as store:
        part = store.parts[""]
        block = {**arrays_of(part, 0), name: wrong}
        if wrong is None:
            del block[name]
        with pytest.raises(ValueError, match="expected"):
            part.write_block(0, block)
        assert part.list_missing() == [0, 1, 2]
