"""What every source shares: which names count, how files are read, what a listing digests to.

Hidden files and folders (.DS_Store, ._x.jpg, .git) and __MACOSX are passed over; files
whose names are no image's are counted and never opened.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.images import BadImageError
from cdm_cli.data.skips import Skips, printable
from cdm_cli.errors import DiskError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_FILE_BYTES = 2**27  # of one encoded image
MAX_TABLE_BYTES = 2**28  # of dataset.json or a label table
DATASET_JSON = "dataset.json"

NOT_BY_NAME = "not .png, .jpg, .jpeg or .webp"


def is_junk(name: str) -> bool:
    """Tell names that are no one's data: hidden ones, and what macOS leaves behind."""
    return name.startswith(".") or name == "__MACOSX"


def is_image_name(name: str, skips: Skips) -> bool:
    """Tell by the suffix whether to look inside; what is passed over is counted."""
    if name.lower().endswith(SUFFIXES):
        return True
    skips.add(NOT_BY_NAME, name)
    return False


def read_regular(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file whole, never following a link or waiting for a device.

    Raises BadImageError (no permission, no regular file, too large), DiskError.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not a regular file")
            if status.st_size > limit:
                raise BadImageError(f"a file of more than {limit >> 20} MiB")
            return file.read()
    except PermissionError as error:
        raise BadImageError("no permission to read") from error
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> DiskError:
    """Say that reading failed in a way that is not the file's fault."""
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return DiskError(f"{printable(str(path))} changed while it was read", next="run it again")
    return DiskError(f"{printable(str(path))} cannot be read: {error.strerror}")


def listing_digest(names: Sequence[str], *columns: NDArray[np.integer]) -> str:
    """Return the sha256 over names and columns of numbers."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for column in columns:
        digest.update(np.ascontiguousarray(column, "<i8").tobytes())
    return digest.hexdigest()
