"""Reading bytes of files that may come from strangers, or fail."""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from cdm_cli.errors import BadInputError, CdmError, DiskError, MissingError, UnsafeInputError
from cdm_cli.translation import no_input


def open_regular(path: Path, *, writable: bool = False, follow: bool = True) -> int:
    """Open a regular file, without waiting for a pipe or touching a device.

    follow: follow a link to a regular file, which whoever typed the path may have made.
    Raises MissingError, UnsafeInputError for what is no regular file, DiskError or
    BadInputError where the system refuses to open it.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    flags |= 0 if follow else os.O_NOFOLLOW
    try:
        if not stat.S_ISREG(os.stat(path, follow_symlinks=follow).st_mode):
            raise _irregular_error(path, follow)
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise no_input(path) from None
    except ValueError:
        raise MissingError(f"{path} cannot be the name of a file", next="check it") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _irregular_error(path, follow) from None
        kind = DiskError if writable or error.errno == errno.EIO else BadInputError
        raise kind(f"{path} cannot be opened: {error.strerror}", next="see to it") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _irregular_error(path, follow)
    return fd


def _irregular_error(path: Path, follow: bool) -> CdmError:
    advice = "give the path of a file" if follow else "put a copy in its place"
    told = f"{path} is not a regular file"
    return UnsafeInputError(told, kept="it was not opened", next=advice)


def read_at(fd: int, path: Path, size: int, offset: int) -> bytes:
    """Read up to size bytes, fewer only at the end of the file. Raises DiskError."""
    try:
        return os.pread(fd, size, offset)
    except OSError as error:
        raise _unreadable_error(path, error) from error


def read_into(fd: int, path: Path, view: memoryview, offset: int) -> None:
    """Fill view. Raises DiskError, or BadInputError where the file ends before."""
    while len(view):
        try:
            count = os.preadv(fd, [view[: 2**30]], offset)
        except OSError as error:
            raise _unreadable_error(path, error) from error
        if count == 0:
            raise cut_error(path)
        view, offset = view[count:], offset + count


def _unreadable_error(path: Path, error: OSError) -> CdmError:
    return DiskError(f"{path} cannot be read: {error.strerror}", next="see to the disk, then rerun")


def cut_error(path: Path) -> CdmError:
    """Return the error for a file that was cut while it was read."""
    return BadInputError(f"{path} became shorter while it was read", next="restore it, then rerun")


class Stamp(NamedTuple):
    """What the file system changes where a file is written to, cut or touched in place."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def read_stamp(file: int | Path) -> Stamp:
    """Return the stamp of an open file, or of what lies at a path now. Raises OSError."""
    found = os.stat(file)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
