"""Mirrors cdm_cli/data/blocks.py."""

import hashlib

import numpy as np
import pytest

from cdm_cli.data import disk
from cdm_cli.data.store import create, open_store
from tests.data.stores import (
    arrays_of,
    fill,
    filled,
    flip,
    forget_block,
    prepared_spec,
    samples_spec,
)


@pytest.fixture
def store(tmp_path):
    with create(tmp_path / "a.h5", samples_spec()) as store:
        yield store


@pytest.fixture
def part(store):
    return store.parts[""]


def test_which_rows_a_block_holds(part):
    assert [part.list_rows(b) for b in range(3)] == [range(8), range(8, 16), range(16, 20)]
    for b in (-1, 3):
        with pytest.raises(IndexError):
            part.list_rows(b)


def test_what_was_put_is_read_again(store, part):
    assert part.list_missing() == [0, 1, 2]
    for b in (2, 0):
        part.put_block(b, arrays_of(part, b))
    assert (part.is_done(0), part.is_done(1), part.is_done(2)) == (True, False, True)
    assert part.list_missing() == [1]
    for b in (0, 2):
        assert part.check_block(b)
        for name, array in part.read_block(b).items():
            np.testing.assert_array_equal(array, arrays_of(part, b)[name])
    assert not part.check_block(1), "nothing was written there"


def test_bytes_are_synced_before_the_flag_that_says_so(part):
    """The whole promise of the store is this order."""
    seen = []
    with disk.announce_to(seen.append):
        part.put_block(1, arrays_of(part, 1))
    data = len(part.members) + 1
    assert [io.kind for io in seen] == [*["write"] * data, "sync", "write", "sync"]
    assert (seen[-2].offset, bytes(seen[-2].data)) == (place(part, "done") + 1, b"\1")
    written = [(io.offset, len(io.data)) for io in seen[:data]]
    expected = [
        (place(part, name) + 8 * member.row_bytes, 8 * member.row_bytes)
        for name, member in part.members.items()
    ]
    assert written == [*expected, (place(part, "digest") + 32, 32)]


def place(part, name):
    return part._opened.layout.offsets[f"{part.name}/{name}" if part.name else name]


def test_the_digest_is_sha256_of_place_and_bytes(part):
    """Stated here a second time, since files of years ago depend on it."""
    part.put_block(2, arrays_of(part, 2))
    block = part.read_block(2)
    hashed = hashlib.sha256(b"/2/4\n")
    for name in ("ids", "images/8", "labels", "z/3", "z/12"):
        hashed.update(block[name].tobytes())
    assert part.read_digest(2) == hashed.digest()
    assert part.read_digests() == bytes(64) + hashed.digest()


def test_equal_bytes_elsewhere_are_not_the_same_block(tmp_path):
    """A block copied over another, or from train to val, is noticed."""
    with create(tmp_path / "b.h5", prepared_spec(num_val=20)) as store:
        train, val = store.parts["train"], store.parts["val"]
        same = arrays_of(train, 0)
        for part in (train, val):
            for b in (0, 1):
                part.put_block(b, same)
        digests = {part.read_digest(b) for part in (train, val) for b in (0, 1)}
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["ids", "images/8", "labels", "z/3", "z/12", "digest"])
def test_a_changed_byte_anywhere_in_a_block_is_noticed(tmp_path, name):
    path = filled(tmp_path / "b.h5", samples_spec())
    with open_store(path) as store:
        part = store.parts[""]
        rows = {"digest": 32}.get(name) or 8 * part.members[name].row_bytes
        for byte in (0, rows // 2, rows - 1):
            flip(path, place(part, name) + rows + byte)
            assert [part.check_block(b) for b in range(3)] == [True, False, True]
            flip(path, place(part, name) + rows + byte)
        assert all(part.check_block(b) for b in range(3))


def test_large_blocks_are_checked_piece_by_piece(tmp_path, monkeypatch):
    path = filled(tmp_path / "b.h5", samples_spec())
    monkeypatch.setattr("cdm_cli.data.blocks.PIECE", 100)
    with open_store(path) as store:
        assert all(store.parts[""].check_block(b) for b in range(3))


@pytest.mark.parametrize("flag", [0, 2, 255])
def test_only_one_value_means_done(tmp_path, flag):
    path = filled(tmp_path / "b.h5", samples_spec())
    with open_store(path) as store:
        part = store.parts[""]
        flip(path, place(part, "done") + 1, 1 ^ flag)
        assert part.list_missing() == [1]
        assert not part.is_done(1)


def test_a_forgotten_block_is_written_again(store, part):
    fill(store)
    forget_block(part, 1)
    assert part.list_missing() == [1]
    fill(store)
    assert part.finished


def test_columns_in_any_order_are_written_in_theirs(part):
    block = arrays_of(part, 0)
    turned = np.asfortranarray(block["images/8"])
    assert not turned.flags.c_contiguous
    part.put_block(0, {**block, "images/8": turned})
    np.testing.assert_array_equal(part.read_block(0)["images/8"], block["images/8"])
    assert part.check_block(0)
