"""One job writes a store at a time; its processes share it.

The lock is flock(2) on the store itself: it ends with its owner, however that ends, and goes
with the file when that is renamed. A job takes it exclusively, which proves that no other job
has it, then keeps it shared, so that its other processes can join. Who holds it stands in the
member `writer` of the store.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path

from cdm_cli.data.disk import hold_open, open_directory
from cdm_cli.data.reading import open_regular, read_at
from cdm_cli.data.schema import WRITER_SIZE
from cdm_cli.errors import DiskError, StoppedError

UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
GLANCES, GLANCE = 20, 0.05  # seconds between looks for the name of a holder
LOOKS, LOOK = 5, 0.03  # seconds between tries for a lock


def take(fd: int, path: Path, writer_at: int, *, join: bool, busy: str = "") -> None:
    """Lock an open store for writing, or a file that stands for what is being done.

    writer_at: where the holder is recorded. join: as one more process of the job that holds it.
    busy: what is said of a lock that another has, by default "PATH is being written".

    Where the file system has no locks nothing is locked; two writers of one store would write the
    same bytes. Raises StoppedError naming the holder.
    """
    try:
        lock_soon(fd, *([] if join else [fcntl.LOCK_EX]), fcntl.LOCK_SH)
    except BlockingIOError:
        told = busy or f"{path} is being written"
        raise _busy_error(f"{told} by {read_holder(fd, path, writer_at)}") from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise DiskError(
                f"{path} cannot be locked: {error.strerror}", next="see to it"
            ) from None


def _busy_error(what: str) -> StoppedError:
    return StoppedError(
        what, kept="that one goes on undisturbed", next="wait for it, or stop it and rerun"
    )


def lock_soon(fd: int, *kinds: int) -> None:
    """Lock an open file in several ways, one after another; the last one stays.

    Whoever only looks (`is_held`) holds the lock for an instant, so a lock that is held is tried
    again, for a tenth of a second. Raises BlockingIOError if it is still held, and other OSErrors.
    """
    for left in reversed(range(LOOKS)):
        try:
            for kind in kinds:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(LOOK)
        else:
            return


def is_in_use(path: Path) -> bool:
    """Return whether a job holds the lock that `hold_directory` takes of a directory."""
    with hold_open(open_directory(path)) as fd:
        return is_held(fd)


@contextlib.contextmanager
def hold_directory(path: Path, *, alone: bool) -> Generator[None]:
    """Lock a directory, shared with others who work in it, or alone; no file is made for it.

    Where the file system has no locks nothing is locked. Raises StoppedError where another job
    works in it, or has it alone.
    """
    with hold_open(open_directory(path)) as fd:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        _lock_if_possible(fd, kind, f"another job works in {path}:")
        yield


@contextlib.contextmanager
def hold_file(path: Path) -> Generator[None]:
    """Lock a file alone for as long as entered.

    Where the file system has no locks nothing is locked. Raises StoppedError naming the holder.
    """
    with hold_open(open_regular(path)) as fd:
        _lock_if_possible(fd, fcntl.LOCK_EX, f"{path} is being written by")
        yield


def _lock_if_possible(fd: int, kind: int, busy: str) -> None:
    """Lock an open file where its file system can; raise StoppedError if another job has it."""
    with contextlib.suppress(OSError):
        try:
            lock_soon(fd, kind)
        except BlockingIOError:
            raise _busy_error(f"{busy} {ask_for_holder(fd)}") from None


def is_held(fd: int) -> bool:
    """Return whether another job holds the lock of an open file, exclusively or shared."""
    try:
        lock_soon(fd, fcntl.LOCK_EX)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_locked(fd: int) -> bool:
    """Return whether another program has a file locked exclusively, as libhdf5's writers do."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def read_holder(fd: int, path: Path, place: int) -> str:
    """Return who holds a locked file, from the record at `place` in it.

    A holder that has only just begun gets a second to write it. Where nothing is left to write in a
    store its holder has no record, and Linux is asked.
    """
    for _ in range(GLANCES):
        told = read_at(fd, path, WRITER_SIZE, place).rstrip(b"\0")
        if told:
            return _name_holder(told)
        time.sleep(GLANCE)
    return ask_for_holder(fd)


def ask_for_holder(fd: int) -> str:
    """Return who holds the lock of an open file that has no record, as far as Linux tells."""
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            if " FLOCK " in line and f" {device}:{found.st_ino} " in line:
                return f"process {line.split()[-4]} on {socket.gethostname()}"
    return "another process"


def _name_holder(record: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        told = json.loads(record)
        return f"process {told['pid']} on {told['host']} ({told['command']})"
    return "another process"


def describe_writer() -> bytes:
    """Return who this process is, as the member `writer` tells it."""
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    encoded = b""
    for length in (300, 80, 0):  # other alphabets take up to twelve bytes a letter
        told = {"pid": os.getpid(), "host": socket.gethostname()[:64], "command": command[:length]}
        encoded = json.dumps(told).encode()
        if len(encoded) <= WRITER_SIZE:
            break
    return encoded[:WRITER_SIZE].ljust(WRITER_SIZE, b"\0")
