"""Mirrors cdm_cli/data/lock.py: one job at a time, and who it is."""

import errno
import fcntl
import json
import os
import socket
import sys
import time

import pytest

from cdm_cli.data import lock
from cdm_cli.data.schema import WRITER_SIZE
from cdm_cli.data.store import create, open_store
from cdm_cli.errors import DiskError, StoppedError
from cdm_cli.jobs.runtime.same_store import resume_or_create
from tests.data.stores import fill, filled, samples_spec
from tests.forking import fork


def forked(action):
    """Run an action in a child process; return its number."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            code = action() or 0
        finally:
            os._exit(code)
    return pid


def settled(pids, num):
    """Return the exit codes of the first num that end, taking them off pids; 20 s at most."""
    codes, deadline = [], time.monotonic() + 20
    while len(codes) < num and time.monotonic() < deadline:
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                pids.remove(pid)
                codes.append(os.waitstatus_to_exitcode(status))
        time.sleep(0.005)
    return codes


def test_who_holds_a_store_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cdm", "sample", "base"])
    with create(tmp_path / "a.h5", samples_spec()), pytest.raises(StoppedError) as caught:
        open_store(tmp_path / "a.h5", writable=True)
    assert f"process {os.getpid()} on {socket.gethostname()} (cdm sample base)" in str(caught.value)
    open_store(tmp_path / "a.h5", writable=True).close()


def test_reading_needs_no_lock(tmp_path):
    with create(tmp_path / "a.h5", samples_spec()), open_store(tmp_path / "a.h5") as reader:
        assert not reader.finished


def test_a_lock_ends_with_its_owner_however_that_ends(tmp_path):
    path = tmp_path / "a.h5"

    def die():
        create(path, samples_spec())
        os.kill(os.getpid(), 9)

    assert settled([forked(die)], 1) == [-9]
    with resume_or_create(path, samples_spec()) as store:
        assert store.parts[""].list_missing() == [0, 1, 2]
    assert [found.name for found in tmp_path.iterdir()] == ["a.h5"]


def test_a_lock_stays_as_long_as_one_process_of_the_job(tmp_path):
    path = tmp_path / "a.h5"
    with create(path, samples_spec()) as first:
        second = open_store(path, writable=True, shared=True)
        first.close()
        with pytest.raises(StoppedError):
            open_store(path, writable=True)
        second.close()
    open_store(path, writable=True).close()


def test_a_lock_goes_with_the_file_when_it_is_renamed(tmp_path):
    with create(tmp_path / "a.h5", samples_spec()):
        (tmp_path / "a.h5").rename(tmp_path / "b.h5")
        with pytest.raises(StoppedError):
            open_store(tmp_path / "b.h5", writable=True)


def test_nobody_is_named_once_the_store_is_left(tmp_path):
    path = filled(tmp_path / "a.h5", samples_spec())
    with open_store(path) as store:
        place = store._opened.layout.offsets["writer"]
    assert path.read_bytes()[place : place + WRITER_SIZE] == bytes(WRITER_SIZE)


@pytest.mark.parametrize("already", [False, True])
def test_of_eight_racers_exactly_one_wins(tmp_path, already):
    """All wait for one pipe to close, then want the same store at once; the winner holds on."""
    path = tmp_path / "a.h5"
    if already:
        create(path, samples_spec()).close()
    for _ in range(3):
        codes = raced(path, 8)
        assert sorted(codes) == [0, *[75] * 7], "one wins, and the others can name it"
        if not already:
            path.unlink()
    assert not [found for found in tmp_path.iterdir() if found.name != "a.h5"]


def raced(path, num):
    """Return the exit codes of num processes that want a store at the same time."""
    (start, go), (end, over) = os.pipe(), os.pipe()

    def race():
        os.close(go), os.close(over)
        os.read(start, 1)
        try:
            with resume_or_create(path, samples_spec()):
                os.read(end, 1)
            return 0
        except StoppedError as error:
            return 75 if "is being written by process" in str(error) else 76

    pids = [forked(race) for _ in range(num)]
    os.close(start), os.close(end)
    os.close(go)
    codes = settled(pids, num - 1)
    os.close(over)
    return codes + settled(pids, num - len(codes))


@pytest.mark.parametrize(
    "record",
    [b"\xff" * 10, b"[" * WRITER_SIZE, b"{}", b"[1]", b'"x"', b"1e999", b'{"pid": 1}'],
)
def test_a_record_that_means_nothing_is_another_process(tmp_path, monkeypatch, record):
    monkeypatch.setattr(lock, "GLANCE", 0)
    path = tmp_path / "a.h5"
    with create(path, samples_spec()) as store:
        place = store._opened.layout.offsets["writer"]
        os.pwrite(store._opened.fd, record.ljust(WRITER_SIZE, b"\0"), place)
        with pytest.raises(StoppedError, match="written by another process"):
            open_store(path, writable=True)


def test_whoever_holds_a_store_that_is_finished_is_named_by_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "GLANCE", 0)
    path = tmp_path / "a.h5"
    with create(path, samples_spec()) as store:
        fill(store)
    with open_store(path, writable=True) as held:
        assert held.finished
        with pytest.raises(StoppedError, match=f"written by process {os.getpid()} on "):
            open_store(path, writable=True)


@pytest.mark.parametrize("words", ["x" * 10_000, "鯉" * 2000, "\0\n\x1b" * 500])
def test_a_record_always_fits(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["cdm", words])
    told = json.loads(lock.describe_writer().rstrip(b"\0"))
    assert len(lock.describe_writer()) == WRITER_SIZE
    assert (told["pid"], told["host"]) == (os.getpid(), socket.gethostname())


@pytest.mark.parametrize("code", sorted(lock.UNSUPPORTED))
def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, code):
    def flock(fd, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with create(tmp_path / "a.h5", samples_spec()) as store:
        fill(store)
        assert store.finished


def test_a_lock_that_fails_is_the_disk_s_fault(tmp_path, monkeypatch):
    path = filled(tmp_path / "a.h5", samples_spec())

    def flock(fd, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError, match="cannot be locked"):
        open_store(path, writable=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_kernel_tells_who_holds_a_file_without_a_record(tmp_path):
    path = tmp_path / "log"
    path.touch()
    with path.open() as held, path.open() as other:
        fcntl.flock(held, fcntl.LOCK_EX)
        mine = f"process {os.getpid()} on {socket.gethostname()}"
        assert lock.ask_for_holder(other.fileno()) == mine
        fcntl.flock(held, fcntl.LOCK_UN)
        assert lock.ask_for_holder(other.fileno()) == "another process"
