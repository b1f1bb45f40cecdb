"""Mirrors cdm_cli/data/guard.py: what is vetted, and what a person is told of anything else.

Files made to harm are in tests/hostile.
"""

import json
import os

import h5py
import pytest

from cdm_cli.data import guard, schema
from cdm_cli.data.guard import open_vetted
from cdm_cli.data.hdf5 import lay_out, read_attributes
from cdm_cli.data.lookup3 import lookup3
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    CdmError,
    MismatchError,
    MissingError,
    StoppedError,
    UnsafeInputError,
)
from tests.data.stores import CLASSES, filled, flip, prepared_spec, samples_spec


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("guard") / "a.h5", samples_spec()).read_bytes()


@pytest.fixture
def path(tmp_path, whole):
    (tmp_path / "a.h5").write_bytes(whole)
    return tmp_path / "a.h5"


def vet(path):
    opened = open_vetted(path)
    os.close(opened.fd)
    return opened


def relaid(path, **changes):
    """The same file with other root attributes, sealed as an attacker would."""
    attributes = schema.make_attributes(samples_spec()) | changes
    layout = schema.lay_out_store(attributes, schema.make_contents(samples_spec()))
    data = bytearray(layout.size)
    data[: len(layout.header)] = layout.header
    packed = schema.pack_classes(CLASSES)[0]
    data[layout.offsets["classes"] : layout.offsets["classes"] + len(packed)] = packed
    path.write_bytes(data)
    return path


def test_a_store_says_what_it_holds(path):
    opened = vet(path)
    assert (opened.kind, opened.classes) == ("samples", CLASSES)
    assert opened.contents == schema.make_contents(samples_spec())
    assert opened.provenance == samples_spec().provenance


def test_the_helper_of_these_tests_makes_stores(path):
    assert vet(relaid(path)).provenance == samples_spec().provenance


def test_a_changed_bit_anywhere_in_the_structure_is_noticed(path, whole):
    layout = vet(path).layout
    start = layout.offsets["classes"]
    places = [*range(len(layout.header)), *range(start, start + 4 * len("tench, Tinca tinca"))]
    for place in places[::2]:
        flip(path, place, 1 << place // 2 % 8)
        with pytest.raises((BadInputError, MismatchError)):
            open_vetted(path)
        flip(path, place, 1 << place // 2 % 8)
    assert path.read_bytes() == whole


def left_open(path, whole):
    """Bring the file to what it is while libhdf5 has it open for writing."""
    with h5py.File(path, "r+") as file:
        file.flush()
        marked = path.read_bytes()
    assert path.read_bytes() == whole != marked
    path.write_bytes(marked)
    return marked


def test_a_file_that_a_killed_program_had_open_is_read(path, whole):
    before, marked = vet(path), left_open(path, whole)
    after = vet(path)
    assert (after.contents, after.layout) == (before.contents, before.layout)
    with open_store(path, writable=True) as store:
        assert all(part.check_block(b) for part in store.parts.values() for b in range(3))
    assert path.read_bytes() == marked


def test_only_the_sealed_mark_of_libhdf5_may_differ(path, whole):
    marked = left_open(path, whole)
    for place in (*range(48), 60, 200):
        flip(path, place)
        with pytest.raises(CdmError):
            open_vetted(path)
        flip(path, place)
    assert path.read_bytes() == marked
    for flags in (2, 8, 255):
        block = whole[:11] + bytes([flags]) + whole[12:44]
        path.write_bytes(block + lookup3(block).to_bytes(4, "little") + whole[48:])
        with pytest.raises(UnsafeInputError):
            open_vetted(path)


def test_a_program_that_has_the_store_open_for_writing_is_told_of(path):
    with h5py.File(path, "r+") as file:
        file.flush()
        for writable in (False, True):
            with pytest.raises(StoppedError, match="open for writing in another program"):
                open_vetted(path, writable=writable)
    vet(path)


@pytest.mark.parametrize("change", [-1, -5000, 1, 4096])
def test_a_file_of_another_size_is_damaged(path, change):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + change)
    with pytest.raises(BadInputError, match=r"has \d+ bytes, a store of its contents has \d+"):
        open_vetted(path)


@pytest.mark.parametrize("fraction", [0, 0.01, 0.3, 0.99])
def test_a_cut_file_is_refused(path, whole, fraction):
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(BadInputError):
        open_vetted(path)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "it is empty"),
        (bytes(1000), "it is all zeros"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\n  <!DOCTYPE html><html>404", "a web page"),
        (b"PK\x03\x04...", "a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\x80\x04\x95", "a pickle"),
        (b"hello world", "it begins with b'hello wo'"),
    ],
)
def test_it_says_what_a_file_is_instead(path, start, what):
    path.write_bytes(start)
    with pytest.raises(BadInputError, match=what) as caught:
        open_vetted(path)
    assert not isinstance(caught.value, UnsafeInputError)


def test_hdf5_of_others_is_unsafe_and_unread(path):
    with h5py.File(path, "w") as file:
        file["images"] = [1, 2, 3]
    with pytest.raises(UnsafeInputError, match="HDF5, but not a store as cdm writes it"):
        open_vetted(path)


def test_our_own_writer_with_another_schema_is_no_store(path):
    layout = lay_out({"schema": b"other/1"}, {"x": schema.Dataset("u1", (4,))})
    path.write_bytes(layout.header.ljust(layout.size, b"\0"))
    with pytest.raises(UnsafeInputError, match="schema = cdm-store"):
        open_vetted(path)


@pytest.mark.parametrize("found", [b"cdm-store/2", b"cdm-store/1.1", b"cdm-store/\xff\n"])
def test_another_version_says_which(path, found):
    with pytest.raises(MismatchError, match="this cdm reads cdm-store/1") as caught:
        open_vetted(relaid(path, schema=found))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": b"other"},
        {"kind": b"\xff"},
        {"provenance": b"[]"},
        {"provenance": b"{"},
        {"provenance": b"[" * 50_000},
        {"provenance": b'{"a": \xff}'},
        {"contents": b"{}"},
        {"contents": b"[" * 50_000},
        {"contents": schema.make_contents(samples_spec()).encode()[:-1]},
    ],
)
def test_attributes_that_mean_nothing_are_damage(path, changes):
    with pytest.raises(BadInputError):
        open_vetted(relaid(path, **changes))


@pytest.mark.parametrize("levels", [32, 33, 900])
def test_a_provenance_nested_deeply_is_refused_before_anything_shows_it(path, levels):
    nested = relaid(path, provenance=b'{"a":' * (levels - 1) + b"[]" + b"}" * (levels - 1))
    if levels > guard.DEEPEST:
        with pytest.raises(UnsafeInputError, match="nested more than 32 deep"):
            open_vetted(nested)
    else:
        assert vet(nested)


@pytest.mark.parametrize(
    "changes",
    [
        {"num": 21}, {"num": 0}, {"num": -1}, {"num": 1.5}, {"num": "x"}, {"num": 2**40},
        {"num": True}, {"resolutions": {"8": 4}}, {"resolutions": {"9": 3}}, {"z": {}},
        {"resolutions": {}}, {"extra": 1},
    ],
)  # fmt: skip
def test_contents_that_do_not_fit_the_file(path, changes):
    contents = json.loads(schema.make_contents(samples_spec()).encode())
    contents["parts"][""].update(changes)
    with pytest.raises(BadInputError):
        open_vetted(relaid(path, contents=json.dumps(contents).encode()))


def test_contents_written_in_another_way_are_still_one_store(path):
    """Spaces in the JSON lead to another header, which is compared as it stands."""
    contents = json.loads(schema.make_contents(samples_spec()).encode())
    assert vet(relaid(path, contents=json.dumps(contents, indent=1).encode()))


def test_more_attributes_than_a_store_has(path):
    """They are laid out again with the rest, so they can hide nothing and cost nothing."""
    assert vet(relaid(path, more=b"x")).provenance == samples_spec().provenance


def test_class_names_that_are_no_text(path):
    spec = samples_spec()
    packed = b"\xff" * len(schema.pack_classes(CLASSES)[0])
    contents = json.loads(schema.make_contents(spec).encode())
    contents["class_sha256"] = schema.hashlib.sha256(packed).hexdigest()
    relaid(path, contents=json.dumps(contents).encode())
    start = lay_out_of(path).offsets["classes"]
    data = bytearray(path.read_bytes())
    data[start : start + len(packed)] = packed
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="not UTF-8"):
        open_vetted(path)


def lay_out_of(path):
    """The layout that the file's own attributes have."""
    attributes = read_attributes(path.read_bytes())
    return schema.lay_out_store(attributes, schema.CONTENTS.validate_json(attributes["contents"]))


def test_large_provenance_is_read_in_one_more_piece(tmp_path):
    spec = prepared_spec(provenance={"identity": {}, "long": "x" * 100_000})
    assert vet(filled(tmp_path / "b.h5", spec)).provenance == spec.provenance


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(MissingError):
        open_vetted(tmp_path / "none.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        open_vetted(tmp_path / "pipe.h5")


def test_a_refused_file_is_closed(path):
    flip(path, 100)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CdmError):
        open_vetted(path)
    assert len(os.listdir("/proc/self/fd")) == before
