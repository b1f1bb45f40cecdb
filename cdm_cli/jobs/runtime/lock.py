"""One job trains a stage, or changes its defaults, at a time: flock(2) on a file in its directory.

The lock ends with its owner, however that ends. Who holds it stands in the file.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from cdm_cli.data import disk, lock
from cdm_cli.errors import DiskError, StoppedError

NAME = ".lock"


@contextlib.contextmanager
def hold_lock(directory: Path) -> Generator[None]:
    """Hold the lock of a stage directory, which is made if need be.

    Raises StoppedError naming another holder. Where the file system has no locks, there is none.
    """
    disk.make_directory(directory)
    path = directory / NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _take(fd, path, directory)
        disk.pwrite_all(fd, path, lock.describe_writer(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, path: Path, directory: Path) -> None:
    try:
        lock.lock_soon(fd, fcntl.LOCK_EX)
    except BlockingIOError:
        raise StoppedError(
            f"{directory} is being trained by {lock.holder(fd, path, 0)}",
            kept="that one goes on undisturbed",
            next="wait for it, or stop it and rerun",
        ) from None
    except OSError as error:
        if error.errno not in lock.UNSUPPORTED:
            raise DiskError(
                f"{path} cannot be locked: {error.strerror}", next="see to it"
            ) from None
