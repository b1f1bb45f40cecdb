"""Mirrors cdm_cli/data/tars.py: what makes a tar refused."""

import errno
import gzip
import io
import os
import tarfile

import pytest

from cdm_cli.data.archives import open_for_reading, pread, read_member
from cdm_cli.data.spool import write_spool
from cdm_cli.data.tars import gunzip, list_tar_members
from cdm_cli.errors import BadInputError, DiskError, UnsafeInputError

NOISE = os.urandom(700)


def member(name, data=NOISE, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def written(path, *members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def test_members_and_their_bytes(tmp_path):
    folder = member("a", b"", type=tarfile.DIRTYPE)
    path = written(tmp_path / "t.tar", folder, member("a/1.png"), member("./b/2.png", b""))
    found = {item.name: read_member(path, item) for item in list_tar_members(path)}
    assert found == {"a/1.png": NOISE, "b/2.png": b""}


def test_pax_sizes_and_names_overrule(tmp_path):
    headers = {"path": "long/" + "n" * 300 + ".png", "size": "3", "comment": "a=b\nc"}
    path = written(tmp_path / "t.tar", member("short", b"abc", pax_headers=headers))
    [found] = list_tar_members(path)
    assert found.name == headers["path"]
    assert read_member(path, found) == b"abc"


def test_global_pax_headers_are_passed_over(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), pax_headers={"comment": "0" * 40})
    assert [item.name for item in list_tar_members(path)] == ["a.png"]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png"])
def test_paths_that_leave_are_refused(name, tmp_path):
    path = written(tmp_path / "t.tar", member("good.png"), member(name))
    with pytest.raises(UnsafeInputError, match="points outside the archive"):
        list_tar_members(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"]
)
def test_links_devices_and_sparse_files_are_refused(kind, tmp_path):
    path = written(tmp_path / "t.tar", member("a.png", b"", type=kind, linkname="/etc/passwd"))
    with pytest.raises(UnsafeInputError, match="is a link, a device or a sparse file"):
        list_tar_members(path)


def test_pax_sparse_files_are_refused(tmp_path):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.size": "99999999999"}
    path = written(tmp_path / "t.tar", member("a.png", pax_headers=headers))
    with pytest.raises(UnsafeInputError, match="sparse"):
        list_tar_members(path)


def test_a_name_twice_is_refused(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), member("./a.png"))
    with pytest.raises(UnsafeInputError, match=r"'a.png' appears twice"):
        list_tar_members(path)


def test_a_giant_header_is_refused_unread(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png", pax_headers={"comment": "x" * 2**21}))
    with pytest.raises(UnsafeInputError, match="a header of"):
        list_tar_members(path)


@pytest.mark.parametrize(
    "size", [b"-0000000512\0", b"\xff" * 12, b"8" * 12, b"1_000\0\0\0\0\0\0\0"]
)
def test_odd_sizes_are_damage(size, tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), format=tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[124:136] = size
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"damaged tar"):
        list_tar_members(path)


def test_a_size_beyond_the_file_is_a_cut(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), format=tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + b"\x7f" * 11
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="ends inside a member"):
        list_tar_members(path)


def test_every_truncation_is_refused(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), member("b.png"))
    whole = path.read_bytes()
    end = 2 * (512 + 1024)  # two members, then blocks of zeros
    for length in [*range(0, end, 97), end]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadInputError):
            list_tar_members(path)


def test_flipped_headers_are_noticed(tmp_path):
    path = written(tmp_path / "t.tar", member("a.png"), format=tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    for place in range(512):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            [found] = list_tar_members(path)
        except BadInputError:
            continue
        assert 148 <= place < 156, "only the checksum's own padding may differ"
        assert found.name == "a.png"


@pytest.mark.parametrize("body", [b"9999 path=x\n", b"path=x\n", b"0 path=x\n", b"3 x"])
def test_damaged_pax_records(body, tmp_path):
    path = written(tmp_path / "t.tar", member("x", body, type=b"x"), member("a.png"))
    with pytest.raises(BadInputError, match="pax header"):
        list_tar_members(path)


def test_gzip_is_unpacked(tmp_path):
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(NOISE))
    assert write_spool(gunzip(path), tmp_path / "spool").read_bytes() == NOISE


@pytest.mark.parametrize("how", ["gz", "member"])
def test_a_disk_that_fails_while_it_is_unpacked_is_named(tmp_path, monkeypatch, how):
    """The file that cannot be read is to blame, not the one beside the output."""
    path = tmp_path / "source"
    path.write_bytes(gzip.compress(NOISE))

    def fails(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(*((gzip, "open") if how == "gz" else (os, "pread")), fails)
    with open_for_reading(path) as file:
        parts = gunzip(path) if how == "gz" else (pread(path, file, at, 1) for at in range(9))
        with pytest.raises(DiskError, match=f"{path} cannot be read: Input/output error"):
            write_spool(parts, tmp_path / "spool")


def test_a_gzip_bomb_is_refused(tmp_path):
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(bytes(2**25)))
    with pytest.raises(UnsafeInputError, match="expands without end"):
        write_spool(gunzip(path), tmp_path / "spool")
    assert (tmp_path / "spool").stat().st_size <= 1000 * path.stat().st_size + 4096


def test_cut_and_changed_gzip_is_damage(tmp_path):
    path = tmp_path / "t.gz"
    whole = gzip.compress(NOISE)
    for data in (whole[:-1], whole[:50], whole[:60] + b"\0\0\0" + whole[63:], whole + b"junk"):
        path.write_bytes(data)
        with pytest.raises(BadInputError, match=r"damaged .gz"):
            list(gunzip(path))
