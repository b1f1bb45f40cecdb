"""Mirrors cdm_cli/data/reading.py."""

import os

import pytest

from cdm_cli.data import reading
from cdm_cli.data.reading import open_regular, read_at, read_into
from cdm_cli.errors import BadInputError, DiskError, MissingError, UnsafeInputError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    return path


def opened(path, **how):
    os.close(open_regular(path, **how))


def test_a_regular_file_and_a_link_to_one(path):
    (path.parent / "link").symlink_to(path)
    for found in (path, path.parent / "link"):
        fd = open_regular(found)
        assert read_at(fd, found, 10, 95) == bytes(range(95, 100))
        os.close(fd)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
def test_pipes_directories_and_loops_are_not_opened(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        opened(tmp_path / "a")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/stdin"])
def test_devices_are_not_opened(device, monkeypatch):
    if not os.path.exists(device):
        pytest.skip(f"no {device}")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises((UnsafeInputError, BadInputError)):
        open_regular(reading.Path(device))


def test_a_pipe_put_in_place_of_a_file_is_noticed(path, monkeypatch):
    """What was looked at by name may be something else when it is opened."""
    really = os.open

    def swapped(name, *how):
        path.unlink()
        os.mkfifo(path)
        return really(name, *how)

    monkeypatch.setattr(os, "open", swapped)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["none", "none/a", "a/b", "nul\0"])
def test_what_is_not_there(path, name):
    with pytest.raises(MissingError):
        open_regular(path.parent / name)


def test_a_name_too_long_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="too long"):
        open_regular(tmp_path / ("n" * 300))


def test_what_may_not_be_written_says_so(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        open_regular(path, writable=True)
    with pytest.raises(BadInputError, match="Permission denied"):
        open_regular(path)


def test_read_into_fills_or_says_that_the_file_was_cut(path, monkeypatch):
    view = memoryview(bytearray(50))
    fd, really = open_regular(path), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: really(fd, [views[0][:3]], at))
    read_into(fd, path, view, 20)
    assert bytes(view) == bytes(range(20, 70))
    with pytest.raises(BadInputError, match="became shorter"):
        read_into(fd, path, view, 60)
    os.close(fd)


def test_a_disk_that_fails_is_named(path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    fd = open_regular(path)
    monkeypatch.setattr(os, "pread", broken)
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(DiskError, match="cannot be read: Input/output error"):
        read_at(fd, path, 1, 0)
    with pytest.raises(DiskError, match="cannot be read: Input/output error"):
        read_into(fd, path, memoryview(bytearray(1)), 0)
    os.close(fd)
