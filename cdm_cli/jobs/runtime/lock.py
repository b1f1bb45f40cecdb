"""One job trains a stage, or changes its defaults, at a time: flock(2) on a file in its directory.

The lock ends with its owner, however that ends. Who holds it stands in the file.
"""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from cdm_cli.data import disk, lock

NAME = ".lock"


@contextlib.contextmanager
def hold_lock(directory: Path) -> Generator[None]:
    """Hold the lock of a stage directory, which is made if need be.

    Raises StoppedError naming another holder, DiskError where nothing can be written. Where the
    file system has no locks, there is none.
    """
    disk.make_directory(directory)
    path = directory / NAME
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with disk.translate_disk_errors(path):
        opened = os.open(path, flags, 0o644)
    with disk.hold_open(opened) as fd:
        lock.take(fd, path, 0, join=False, busy=f"{directory} is being trained")
        disk.pwrite_all(fd, path, lock.describe_writer(), 0)
        yield
