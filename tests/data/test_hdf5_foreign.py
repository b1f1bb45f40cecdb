"""Mirrors cdm_cli/data/hdf5_foreign.py: anybody's HDF5 becomes images, or is refused."""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest

from cdm_cli.data import hdf5_foreign
from cdm_cli.data.hdf5_foreign import Inside, find_inside, is_hdf5, open_hdf5
from cdm_cli.data.labels import find_labels
from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import open_source
from cdm_cli.errors import BadInputError, CdmError, DiskError, UnsafeInputError, UsageError
from tests.forking import children_of
from tests.hostile import make

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 6, 5, 3)).astype(np.uint8)
Y = RNG.integers(0, 4, 60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def write(path, *, images=X, labels=Y, how=None, **file):
    with h5py.File(path, "w", **file) as out:
        out.create_dataset("data/x", data=images, **how or {})
        out["data/a"] = np.arange(3)
        out["data/y"] = labels
    return path


def read(path, images="data/x", labels="data/y"):
    source = open_hdf5(path, Inside(images, labels), path.with_name("spool"))
    pixels = np.stack([source.read(i) for i in range(len(source.names))])
    return source, pixels


@pytest.mark.parametrize(
    ("how", "file"),
    [
        ({}, {}),
        ({"chunks": (7, 4, 5, 2), "compression": "gzip", "shuffle": True, "fletcher32": True}, {}),
        ({"chunks": (1, 6, 5, 3), "compression": "lzf"}, {"libver": "latest"}),
        ({"chunks": (60, 1, 1, 1)}, {"userblock_size": 1024}),
    ],
    ids=["contiguous", "gzip", "lzf", "userblock"],
)
def test_pixels_and_labels_however_they_are_stored(path, how, file):
    source, pixels = read(write(path, how=how, **file))
    np.testing.assert_array_equal(pixels, X)
    np.testing.assert_array_equal(source.labels, Y)
    assert (source.name, source.names[7]) == ("a.h5", "data/x[7]")
    assert source.digest() == read(write(path.with_name("b.h5")))[0].digest()


def test_shapes_that_others_use(path):
    turned, pixels = read(write(path, images=X.transpose(0, 3, 1, 2), labels=Y[:, None, None]))
    np.testing.assert_array_equal(pixels, X)
    np.testing.assert_array_equal(turned.labels, Y)
    gray, pixels = read(write(path, images=X[..., 0], labels=Y.astype(">u2")), labels=None)
    np.testing.assert_array_equal(pixels, X[..., :1])
    assert gray.labels is None
    found = find_labels(gray, None, Skips())
    assert (found.how, len(found.classes)) == ("no folders: one class", 1)  # data/ is none


def test_reads_of_several_steps(path, monkeypatch):
    """Steps of the child are 16 MiB: 40 MB in chunks of 9 rows, and as CHW."""
    plane = RNG.integers(0, 256, (3, 512, 512)).astype(np.uint8)
    images = plane + np.arange(50, dtype=np.uint8)[:, None, None, None]
    write(path, images=images, labels=Y[:50], how={"chunks": (9, 3, 256, 512)})
    source = open_hdf5(path, Inside("data/x"), path.with_name("spool"))
    for row in (0, 8, 9, 31, 49):
        np.testing.assert_array_equal(source.read(row), images[row].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("kind", "words", "wrong"),
    [
        (UsageError, r"is HDF5, and has data/x uint8 \[60, 6, 5, 3\]; data/a int64 .*"
         r"Next: --images data/x", {"images": ""}),
        (UsageError, "it has no dataset data/z; it has data/x.*; data/a", {"images": "data/z"}),
        (UsageError, "it has no dataset data/x/y", {"images": "data/x/y"}),
        (UsageError, "data is no dataset; it has", {"images": "data"}),
        (UsageError, "no dataset ../x", {"images": "../x"}),
        (BadInputError, r"data/y is int64 \[60\], expected uint8", {"images": "data/y"}),
        (BadInputError, r"data/x is \[60, 6, 5, 3\]: expected one each", {"labels": "data/x"}),
    ],
)  # fmt: skip
def test_what_is_named_wrongly(path, kind, words, wrong):
    with pytest.raises(kind, match=words):
        read(write(path), **wrong)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (r"float32 \[60, 6, 5, 3\], expected uint8", {"images": X.astype(np.float32)}),
        (r"\[60, 6, 5, 9\], expected uint8", {"images": np.zeros((60, 6, 5, 9), np.uint8)}),
        ("data/y is float64", {"labels": Y / 2}),
        (r"data/y\[3\] is -1, no class", {"labels": np.where(np.arange(60) == 3, -1, Y)}),
        (r"data/y\[3\] is \d+, no class", {"labels": np.where(np.arange(60) == 3, 2**40, Y)}),
        (r"data/y\[0\] is \d+, no class", {"labels": np.full(60, 2**64 - 1, np.uint64)}),
    ],
)
def test_what_holds_no_images_or_no_classes(path, words, given):
    with pytest.raises(BadInputError, match=words):
        read(write(path, **given))


# Files of strangers -----------------------------------------------------------------------------

ODD = [
    "external link", "external link to text", "external link to a pipe", "soft link to itself",
    "cycle of hard links", "external storage", "external storage in a device",
    "external storage in a pipe", "virtual dataset", "virtual dataset of a pipe", "gzip bomb",
    "scaleoffset", "10 TB declared", "2^60 declared", "no element", "null", "variable length",
    "compound", "references",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_hostile_files_are_refused(name, tmp_path):
    outside = make.outside_of(tmp_path)
    path = tmp_path / "hostile.h5"
    make.HDF5[name](path, outside)
    start = time.monotonic()
    with pytest.raises(CdmError) as caught:
        read(path, images="images", labels=None)
    assert caught.value.exit_code in (2, 65)
    assert "broke down" not in str(caught.value)
    assert make.SECRET.decode() not in str(caught.value)
    assert time.monotonic() - start < 20


def chunked(path, data, shape=(4, 1024, 1024, 4), mask=0):
    """Write a dataset of one gzip chunk, whose stored bytes are `data`."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("data/x", shape, "u1", chunks=shape, compression="gzip")
        made.id.write_direct_chunk((0, 0, 0, 0), data, filter_mask=mask)
    return path


def test_a_chunk_that_never_ends_is_ended(path):
    """16 MiB of pixels that inflate to gigabytes: libhdf5 would double its memory for ever."""
    zeros = subprocess.run(
        [sys.executable, "-c", "import zlib, sys; c = zlib.compressobj(9); z = bytes(2**24);"
         "p = c.compress(z) + c.flush(zlib.Z_FULL_FLUSH); q = c.compress(z) + "
         "c.flush(zlib.Z_FULL_FLUSH); sys.stdout.buffer.write(p + q * 80)"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert len(zeros) < 2**24
    with pytest.raises(BadInputError):
        read(chunked(path, zeros), labels=None)


@pytest.mark.parametrize(
    ("data", "mask"),
    [(b"x" * (2**24 + 2**15), 0), (bytes(2**10), 1), (b"\x78\x9c" + b"\xff" * 99, 0)],
    ids=["longer than its pixels", "a filter left out", "no deflate"],
)
def test_chunks_that_are_not_what_they_say(path, data, mask):
    with pytest.raises(BadInputError):
        read(chunked(path, data, mask=mask), labels=None)


def test_chunks_that_were_not_written(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("data/x", X.shape, "u1", chunks=(10, 6, 5, 3))
        made[:30] = X[:30]
    with pytest.raises(BadInputError, match="only 3 of its 6 chunks"):
        read(path, labels=None)


def test_damaged_files_are_refused_or_read(path):
    """A byte changed in the part that says what is where; the child may break, nothing else."""
    data = write(path, how={"chunks": (20, 6, 5, 3), "compression": "gzip"}).read_bytes()
    for place in np.random.default_rng(1).integers(8, 2500, 8).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with suppress(BadInputError, UsageError):
            assert len(read(path)[1]) > 0


def test_a_file_that_is_cut(path):
    data = write(path).read_bytes()
    for size in (9, 600, 3000, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CdmError) as caught:
            read(path)
        assert caught.value.exit_code in (2, 65)


# The child ---------------------------------------------------------------------------------------


PUT = """import os, time
def put(kind, data):
    os.write(1, kind + len(data).to_bytes(8, "little") + data)
"""


def played(tmp_path, monkeypatch, code):
    """Let another program play the child."""
    child = tmp_path / "child.py"
    child.write_text(f"{PUT}\n{code}")
    monkeypatch.setattr(hdf5_foreign, "CHILD", child)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), 11)", r"broke down on it \(-11\)"),
        ("os.kill(os.getpid(), 24)", "takes too long"),
        ("time.sleep(60)", "nothing was read of it for 0 s"),
        ("put(b'H', b'[2, 6, 5, 3]'); time.sleep(60)", "nothing was read of it for 0 s"),
        ("os.close(1); time.sleep(60)", "broke down"),
        ("put(b'H', b'[2, 6, 5]')", "broke down"),
        ("put(b'H', b'{')", "broke down"),
        ("put(b'E', b'x')", "broke down"),
        ("put(b'.', b'')", "broke down"),
        ("os.write(1, b'H' + b'\\xff' * 8)", "broke down"),
        ("put(b'H', b'[2, 6, 5, 3]'); put(b'I', bytes(180)); put(b'I', b'x'); put(b'.', b'')", ""),
        ("put(b'H', b'[2, 6, 5, 3]'); put(b'I', bytes(180)); put(b'L', b''); put(b'.', b'')", ""),
        ("put(b'H', b'[2, 6, 5, 3]'); put(b'I', bytes(100)); put(b'.', b'')", "end too early"),
        ("put(b'H', b'[2, 70000, 70000, 3]')", "has images of"),
        ("put(b'H', b'[1073741824, 8192, 8192, 3]')", "are free"),
    ],
)  # fmt: skip
def test_a_child_that_breaks_down_or_lies(path, tmp_path, monkeypatch, code, words):
    write(path)
    monkeypatch.setattr(hdf5_foreign, "SILENCE", 0.4)
    monkeypatch.setattr(hdf5_foreign, "ENDING", 0.2)
    played(tmp_path, monkeypatch, code)
    if not words:  # more than it said: the rest is not taken
        assert read(path, labels=None)[1].sum() == 0
        return
    with pytest.raises((UnsafeInputError, BadInputError, DiskError), match=words) as caught:
        read(path, labels=None)
    assert str(path.with_name("spool") if "free" in words else path) in str(caught.value)


def test_no_child_is_left(path):
    write(path)
    before = children_of(os.getpid())  # other tests may keep some
    source = open_hdf5(path, Inside("data/x"), path.with_name("spool"))
    assert source.labels is None
    with pytest.raises(UsageError):
        read(path, images="")
    assert children_of(os.getpid()) == before


# Sources ------------------------------------------------------------------------------------------


def test_what_a_source_is_its_bytes_say(path, tmp_path):
    write(path, userblock_size=2048)
    assert is_hdf5(path)
    named = tmp_path / "images.zip"
    path.rename(named)
    source = open_source(named, Skips(), tmp_path / "spool", inside=Inside("data/x", "data/y"))
    np.testing.assert_array_equal(source.labels, Y)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"--images x: .*folder is no HDF5 file"):
        open_source(tmp_path / "folder", Skips(), tmp_path / "spool", inside=Inside("x"))
    assert find_inside(None, path) == (None, path)
    assert find_inside("x", None) == (Inside("x", None), None)
    assert re.fullmatch(r"Inside\(images='x', labels='a/y'\)", repr(find_inside("x", "a/y")[0]))
