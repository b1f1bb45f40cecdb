"""Mirrors cdm_cli/data/hdf5.py. The independent source is h5py: libhdf5 reads what we lay out."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm_cli.data import hdf5
from cdm_cli.data.hdf5 import Dataset, lay_out, read_attributes
from cdm_cli.data.lookup3 import lookup3

NAME = st.text("abcdefghijklmnop0123456789_ é鯉", min_size=1, max_size=40)
DTYPE = st.sampled_from(["u1", "i8", "f2", "S1", "S5", "S512"])
SHAPE = st.lists(st.integers(1, 4), max_size=4).map(tuple)


@st.composite
def trees(draw):
    """Paths of which none lies inside another, to Dataset."""
    datasets = {}
    for _ in range(draw(st.integers(1, 6))):
        path = "/".join(draw(st.lists(NAME, min_size=1, max_size=3)))
        clash = any(f"{a}/".startswith(f"{b}/") for a, b in ((path, p) for p in datasets))
        clash |= any(f"{b}/".startswith(f"{a}/") for a, b in ((path, p) for p in datasets))
        if not clash:
            datasets[path] = Dataset(draw(DTYPE), draw(SHAPE))
    return datasets


def write(path, layout, contents=None):
    """Write a file of that layout; contents: dataset to bytes."""
    data = bytearray(layout.size)
    data[: len(layout.header)] = layout.header
    for name, body in (contents or {}).items():
        data[layout.offsets[name] : layout.offsets[name] + len(body)] = body
    path.write_bytes(data)
    return path


def objects_of(file):
    """Every object below the root by its path, found by following hard links alone."""
    found = {}

    def walk(group, prefix):
        for name in group:
            assert isinstance(group.get(name, getlink=True), h5py.HardLink)
            item = group[name]
            found[prefix + name] = item
            if isinstance(item, h5py.Group):
                walk(item, f"{prefix}{name}/")

    walk(file, "")
    return found


@settings(max_examples=60, deadline=None)
@given(datasets=trees(), attributes=st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1)))
def test_libhdf5_finds_exactly_what_was_laid_out(tmp_path_factory, datasets, attributes):
    layout = lay_out(attributes, datasets)
    rng = np.random.default_rng(0)
    contents = {name: rng.bytes(dataset.nbytes) for name, dataset in datasets.items()}
    path = write(tmp_path_factory.mktemp("hdf5") / "a.h5", layout, contents)
    with h5py.File(path) as file:
        found = objects_of(file)
        leaves = {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}
        assert leaves.keys() == datasets.keys()
        groups = {"/".join(name.split("/")[:depth]) for name in datasets for depth in range(1, 9)}
        assert found.keys() == groups
        for name, dataset in datasets.items():
            check(leaves[name], dataset, layout.offsets[name], contents[name], path)
        stored = {name: file.attrs.get_id(name) for name in file.attrs}
        assert stored.keys() == attributes.keys()
        for name, value in attributes.items():
            assert stored[name].dtype == np.dtype(f"S{len(value)}")
            raw = np.empty((), f"S{len(value)}")
            stored[name].read(raw, mtype=stored[name].get_type())
            assert raw.tobytes() == value
    assert read_attributes(layout.header) == attributes


def check(item, dataset, offset, body, path):
    """One dataset as libhdf5 sees it: type, shape, place, form of storage, bytes."""
    kind = f"<{dataset.dtype}" if dataset.dtype[0] != "S" else dataset.dtype
    assert (item.dtype, item.shape) == (np.dtype(kind), dataset.shape)
    created = item.id.get_create_plist()
    assert created.get_layout() == h5py.h5d.CONTIGUOUS
    assert created.get_external_count() == created.get_nfilters() == 0
    assert created.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
    assert created.get_fill_time() == h5py.h5d.FILL_TIME_NEVER
    assert item.id.get_offset() == offset
    assert offset % hdf5.ALIGNMENT == 0
    assert path.read_bytes()[offset : offset + dataset.nbytes] == body
    raw = np.empty(dataset.shape, kind)
    item.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, item.id.get_type())
    assert raw.tobytes() == body


def test_numbers_and_strings_come_back_as_values(tmp_path):
    datasets = {
        "i": Dataset("i8", (3,)), "f": Dataset("f2", (2,)), "s": Dataset("S5", (2,)),
    }  # fmt: skip
    contents = {
        "i": np.array([-1, 2**62, 0], "<i8").tobytes(),
        "f": np.array([-0.5, 65504], "<f2").tobytes(),
        "s": "鯉".encode().ljust(5, b"\0") + b"ab\0\0\0",
    }
    with h5py.File(write(tmp_path / "a.h5", lay_out({}, datasets), contents)) as file:
        assert file["i"][:].tolist() == [-1, 2**62, 0]
        assert file["f"][:].tolist() == [-0.5, 65504]
        assert file["s"].asstr()[:].tolist() == ["鯉", "ab"]
        info = h5py.check_string_dtype(file["s"].dtype)
        assert (info.encoding, info.length) == ("utf-8", 5)


def test_a_file_larger_than_memory_costs_its_header_only():
    layout = lay_out({}, {"x": Dataset("u1", (2**30, 2**20))})
    assert layout.size > 2**50
    assert len(layout.header) < 1000


def test_what_the_format_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="65535"):
        lay_out({"a": bytes(2**16)}, {"x": Dataset("u1", (1,))})
    with pytest.raises(ValueError, match="more than"):
        lay_out({}, {"x": Dataset("u1", (2**31, 2**32))})


def test_lookup3_against_its_author_s_own_examples():
    """The drivers at the end of lookup3.c, and the seal of a file that libhdf5 wrote."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize("length", range(1, 40))
def test_lookup3_seals_headers_of_any_length(tmp_path, length):
    """libhdf5 verifies every seal it meets."""
    layout = lay_out({"a": b"x" * length}, {"x": Dataset("u1", (1,))})
    with h5py.File(write(tmp_path / "a.h5", layout)) as file:
        assert file.attrs["a"] == b"x" * length
    damaged = bytearray(layout.header)
    damaged[60 + length // 2] ^= 1
    (tmp_path / "b.h5").write_bytes(bytes(damaged).ljust(layout.size, b"\0"))
    with h5py.File(tmp_path / "b.h5") as file, pytest.raises(RuntimeError, match="checksum"):
        list(file)


@pytest.mark.parametrize("start", [b"", b"\x89HDF", b"\x89HDF\r\n\x1a\n" + bytes(100), b"x" * 100])
def test_attributes_of_something_else(start):
    with pytest.raises(ValueError, match="HDF5"):
        read_attributes(start)


def test_attributes_cut_anywhere_raise_value_error():
    header = lay_out({"a": b"value", "bb": b"other"}, {"x": Dataset("u1", (1,))}).header
    for length in range(len(header)):
        try:
            found = read_attributes(header[:length])
        except ValueError:
            continue
        assert found.items() <= {"a": b"value", "bb": b"other"}.items()
