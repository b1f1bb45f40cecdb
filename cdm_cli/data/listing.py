"""What every source shares: which names count, how files are read, what a listing digests to.

Hidden files and folders (.DS_Store, ._x.jpg, .git) and __MACOSX are passed over; files
whose names are no image's are counted and never opened, unless they may be labels.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.images import BadImageError
from cdm_cli.data.skips import Skips, make_printable_name
from cdm_cli.errors import DiskError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_FILE_BYTES = 2**27  # of one encoded image
MAX_TABLE_BYTES = 2**28  # of dataset.json or a label table
MAX_BESIDE_BYTES = 2**20  # of one label beside an image
DATASET_JSON = "dataset.json"
BESIDE = (".cls", ".json")  # what holds the label of the image of that name

NOT_BY_NAME = "not .png, .jpg, .jpeg or .webp"


def is_junk(name: str) -> bool:
    """Tell whether a name is hidden, or what macOS leaves behind: nobody's data."""
    return name.startswith(".") or name == "__MACOSX"


def list_keys(image: str) -> tuple[str, str]:
    """Return the names without suffix that a label file of an image may have, the longest first."""
    folder, slash, name = image.rpartition("/")
    return folder + slash + name.rpartition(".")[0], folder + slash + name.partition(".")[0]


class ListedNames(NamedTuple):
    """The names in a source that count, each sorted: images, and what may hold their labels."""

    images: list[str]
    beside: list[str]


def sort_names(names: Iterable[str], skips: Skips) -> ListedNames:
    """Tell images, and files beside them that may hold their labels, from other files of a source.

    Others are counted in skips; junk and the dataset.json of the source's root are not.
    """
    there = [name for name in names if not any(map(is_junk, name.split("/")))]
    images = sorted(name for name in there if name.lower().endswith(SUFFIXES))
    known = {key for image in images for key in list_keys(image)}
    labels = (name for name in there if name.endswith(BESIDE) and name != DATASET_JSON)
    beside = sorted(name for name in labels if name.rpartition(".")[0] in known)
    used = {*images, *beside, DATASET_JSON}
    for name in (name for name in there if name not in used):
        skips.add(NOT_BY_NAME, name)
    return ListedNames(images, beside)


def read_regular(path: Path, limit: int = MAX_FILE_BYTES, *, follow: bool = False) -> bytes:
    """Read a regular file whole, never waiting for a device, nor following a link unasked.

    Raises BadImageError (no permission, no regular file, too large), DiskError.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        with open(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not a regular file")
            return _read_to_end(file, status.st_size, limit)
    except PermissionError as error:
        raise BadImageError("no permission to read") from error
    except OSError as error:
        raise read_error(path, error) from error


def _read_to_end(file: FileIO, size: int, limit: int) -> bytes:
    """Read a file to its end. size: what it says it has, which files of /proc do not keep to."""
    parts: list[bytes] = []
    total = 0
    while size <= limit and (part := file.read(max(size + 1 - total, 2**16))):
        parts.append(part)
        total += len(part)
        size = max(size, total)
    if size > limit:
        raise BadImageError(f"a file of more than {limit >> 20} MiB")
    return b"".join(parts)


def read_error(path: Path, error: OSError) -> DiskError:
    """Return the DiskError for a read that failed: the file is gone, or the disk is at fault."""
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return DiskError(
            f"{make_printable_name(str(path))} changed while it was read", next="run it again"
        )
    return DiskError(f"{make_printable_name(str(path))} cannot be read: {error.strerror}")


def digest_listing(names: Sequence[str], *columns: NDArray[np.integer]) -> str:
    """Return the SHA-256 over names and columns of numbers."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for column in columns:
        digest.update(np.ascontiguousarray(column, "<i8").tobytes())
    return digest.hexdigest()
