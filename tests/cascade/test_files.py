"""Mirrors cdm_cli/cascade/files.py: what is in a stage directory is a regular file, or unread."""

import os

import pytest

from cdm_cli.cascade.files import open_regular_file, read_bytes
from cdm_cli.errors import BadInputError, MissingError, UnsafeInputError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    return path


def swapped(path, monkeypatch, make):
    """Put something else in place of a file after it was looked at, before it is opened."""
    really = os.open

    def late(name, *how):
        path.unlink()
        make()
        return really(name, *how)

    monkeypatch.setattr(os, "open", late)


def test_a_link_put_in_place_of_a_file_is_not_followed(path, monkeypatch):
    secret = path.with_name("secret")
    secret.write_bytes(b"secret")
    swapped(path, monkeypatch, lambda: path.symlink_to(secret))
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        read_bytes(path, 10)


def test_a_pipe_put_in_place_of_a_file_is_closed_again(path, monkeypatch):
    swapped(path, monkeypatch, lambda: os.mkfifo(path))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        open_regular_file(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_than_the_limit_is_read(path):
    assert read_bytes(path, 5) == b"hello"
    with pytest.raises(BadInputError, match="longer than 4 bytes"):
        read_bytes(path, 4)


@pytest.mark.parametrize("name", ["none", "a/b"])
def test_what_is_not_there(path, name):
    with pytest.raises(MissingError):
        open_regular_file(path.parent / name)
