"""Mirrors cdm_cli/data/zips.py and archives.py: what makes a zip refused, or one image bad."""

import io
import os
import stat
import struct
import zipfile

import pytest

from cdm_cli.data.archives import open_archive, read_member
from cdm_cli.data.images import BadImageError
from cdm_cli.data.skips import Skips
from cdm_cli.data.zips import list_zip_members
from cdm_cli.errors import BadInputError, UnsafeInputError
from tests.drawings import write_zip

NOISE = os.urandom(1000)


def entry(name, mode=0, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.flag_bits = flags
    return info


def written(path, *entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for info, data in entries:
            archive.writestr(info, data, method)
    return path


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "a/../../b.png", "C:/a.png", "..\\a.png", "a/..", "/"]
)
def test_paths_that_leave_are_refused(name, tmp_path):
    path = written(tmp_path / "z.zip", (entry("good.png"), NOISE), (entry(name), NOISE))
    with pytest.raises(UnsafeInputError, match="points outside the archive"):
        list_zip_members(path)


def test_a_name_with_a_nul_is_refused(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a/b.png": NOISE})
    path.write_bytes(path.read_bytes().replace(b"a/b.png", b"a/b\0png"))
    with pytest.raises(UnsafeInputError, match=r"'a/b\\x00png' points outside"):
        list_zip_members(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind, tmp_path):
    path = written(tmp_path / "z.zip", (entry("a.png", kind | 0o777), b"/etc/passwd"))
    with pytest.raises(UnsafeInputError, match=r"'a.png' is a link or a device"):
        list_zip_members(path)


def test_a_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = written(tmp_path / "z.zip", (entry("a.png"), b"1"), (entry("a.png"), b"2"))
    with pytest.raises(UnsafeInputError, match=r"'a.png' appears twice"):
        list_zip_members(path)
    path = written(tmp_path / "z.zip", (entry("a.png"), b"1"), (entry("./a.png"), b"2"))
    with pytest.raises(UnsafeInputError, match=r"'a.png' appears twice"):
        list_zip_members(path)


def test_encryption_is_refused(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a.png": NOISE})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="is encrypted"):
        list_zip_members(path)
    data[data.index(b"PK\x01\x02") + 8] &= ~1
    data[6] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="is encrypted"):
        read_member(path, list_zip_members(path)[0])


def test_odd_compression_is_refused(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a.png": NOISE}, zipfile.ZIP_BZIP2)
    with pytest.raises(UnsafeInputError, match="other than stored and deflate"):
        list_zip_members(path)


def test_a_bomb_is_refused_before_it_expands(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a.png": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeInputError, match="expands more than 1000 times"):
        list_zip_members(path)


def test_a_member_that_lies_about_its_size_stays_small(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a.png": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes().replace(struct.pack("<I", 2**24), struct.pack("<I", 1000))
    path.write_bytes(data)
    with pytest.raises(BadImageError, match="checksum"):
        read_member(path, list_zip_members(path)[0])


def test_overlapping_members_are_refused(tmp_path):
    """Many names for one body, as in the bombs that need no ratio."""
    path = write_zip(tmp_path / "z.zip", {"a.png": NOISE, "b.png": NOISE})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="overlaps another member"):
        list_zip_members(path)


def test_a_member_reaching_into_the_next_is_refused(tmp_path):
    """The list is in order, but the local header moves the data on."""
    path = write_zip(tmp_path / "z.zip", {"a.png": NOISE, "b.png": NOISE})
    data = bytearray(path.read_bytes())
    data[28:30] = struct.pack("<H", 600)
    path.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="overlaps another member"):
        read_member(path, list_zip_members(path)[0])


def test_a_changed_byte_is_one_bad_image(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "z.zip", {"a.png": NOISE, "b.png": NOISE}, method)
        data = bytearray(path.read_bytes())
        data[300] ^= 1
        path.write_bytes(data)
        source = open_archive("z.zip", path, list_zip_members(path), Skips())
        with pytest.raises(BadImageError):
            source.read(0)
        assert source.read(1) == NOISE


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        list_zip_members(tmp_path / "a.npz")


def test_bytes_before_and_after_are_allowed(tmp_path):
    """Self-extracting archives begin with a program; comments stand at the end."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", NOISE)
        archive.comment = b"made by a test"
    path = tmp_path / "z.zip"
    path.write_bytes(b"#!/bin/sh\n" + stream.getvalue())
    assert read_member(path, list_zip_members(path)[0]) == NOISE


def test_every_truncation_is_refused_or_one_bad_image(tmp_path):
    path = write_zip(tmp_path / "z.zip", {"a.png": NOISE[:40], "b.png": NOISE[40:80]})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInputError):
            list_zip_members(path)


def test_flipped_bytes_never_give_other_bytes(tmp_path):
    bodies = {"a.png": NOISE[:60], "b.png": NOISE[60:120]}
    path = write_zip(tmp_path / "z.zip", bodies, zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            read = [read_member(path, member) for member in list_zip_members(path)]
        except (BadInputError, BadImageError):
            continue
        assert set(read) <= set(bodies.values())


def test_windows_separators_make_folders(tmp_path):
    path = written(tmp_path / "z.zip", (entry("cat\\1.png"), NOISE))
    assert [member.name for member in list_zip_members(path)] == ["cat/1.png"]


def test_an_empty_zip_is_empty(tmp_path):
    assert list_zip_members(write_zip(tmp_path / "z.zip", {})) == []
