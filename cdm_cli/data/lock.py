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
from pathlib import Path

from cdm_cli.data.reading import read_at
from cdm_cli.data.schema import WRITER_SIZE
from cdm_cli.errors import DiskError, StoppedError

UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
GLANCES, GLANCE = 20, 0.05  # seconds between looks for the name of a holder


def take(fd: int, path: Path, writer_at: int, *, join: bool) -> None:
    """Lock an open store for writing, as a job of its own or as one more process of a job.

    Where the file system has no locks there is none; two writers of one store would write the
    same bytes. Raises StoppedError naming the holder.
    """
    try:
        if not join:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoppedError(
            f"{path} is being written by {holder(fd, path, writer_at)}",
            kept="that one goes on undisturbed",
            next="wait for it, or stop it and rerun",
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise DiskError(
                f"{path} cannot be locked: {error.strerror}", next="see to it"
            ) from None


def held(fd: int) -> bool:
    """Tell whether another program has an open file for itself alone, as libhdf5's writers do."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def holder(fd: int, path: Path, place: int) -> str:
    """Return who the record at a place of a locked file names.

    A holder that has only just begun is given time to write it.
    """
    for _ in range(GLANCES):
        told = read_at(fd, path, WRITER_SIZE, place).rstrip(b"\0")
        if told:
            return _named(told)
        time.sleep(GLANCE)
    return _named(b"")


def kernel_holder(fd: int) -> str:
    """Return who holds the lock of an open file that has no record, as far as Linux tells."""
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            if " FLOCK " in line and f" {device}:{found.st_ino} " in line:
                return f"process {line.split()[-4]} on {socket.gethostname()}"
    return "another process"


def _named(record: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        told = json.loads(record)
        return f"process {told['pid']} on {told['host']} ({told['command']})"
    return "another process"


def record() -> bytes:
    """Return who this process is, as the member `writer` tells it."""
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    encoded = b""
    for length in (300, 80, 0):  # other alphabets take up to twelve bytes a letter
        told = {"pid": os.getpid(), "host": socket.gethostname()[:64], "command": command[:length]}
        encoded = json.dumps(told).encode()
        if len(encoded) <= WRITER_SIZE:
            break
    return encoded[:WRITER_SIZE].ljust(WRITER_SIZE, b"\0")
