"""The system calls that change a disk: each announced to a hook, its error told in our words.

The hook does nothing, except in tests, where it kills, tears or fails each call in turn.
"""

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.errors import CdmError, DiskError, MissingError, quote
from cdm_cli.units import format_disk

SYNC_FILE_RANGE_WRITE = 2
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space, then rerun"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "write where you may"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR), "a name that is free"),
    errno.ENAMETOOLONG: "a shorter name",
}
UNFINISHED = re.compile(r"\.(.+?)(?:\.[0-9a-f]{8})?\.partial")  # a file, or directory, half made
BESIDE = re.compile(r"(.+?\.h5)(?:\.train|\.val)?\.(?:unpacked|preparing)")  # what becomes a store
Bytes = bytes | memoryview


class Io(NamedTuple):
    """One system call that is about to change a disk."""

    kind: str
    path: Path
    fd: int = -1
    offset: int = 0
    data: Bytes = b""
    target: Path | None = None


Hook = Callable[[Io], None]


def _do_nothing(io: Io) -> None:
    del io


_hooks: list[Hook] = [_do_nothing]


def tick(kind: str, path: Path, **details: Any) -> None:
    """Announce a system call to the hook in force."""
    _hooks[-1](Io(kind, path, **details))


@contextlib.contextmanager
def announce_to(hook: Hook) -> Generator[None, None, None]:
    """Announce every system call to hook, for the duration of a test."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


@contextlib.contextmanager
def hold_open(fd: int) -> Generator[int]:
    """Keep an open file for as long as entered, then close it."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def translate_disk_errors(path: Path) -> Generator[None, None, None]:
    """Turn an OSError into DiskError, or MissingError where the directory does not exist."""
    try:
        yield
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise no_directory_error(path.parent) from error
        raise MissingError(f"{path} does not exist", next="see what removed it") from error
    except OSError as error:
        raise disk_error(path, error) from error


def no_directory_error(path: Path) -> MissingError:
    """Return the error of a directory that does not exist."""
    return MissingError(f"{path} does not exist", next=f"mkdir -p {quote(path)}")


def no_place_error(path: Path) -> DiskError:
    """Return the error of a directory that lets nobody make files, as those of /proc do."""
    return DiskError(
        f"{path.parent} takes no new files", kept="nothing was written", next="write elsewhere"
    )


def disk_error(path: Path, error: OSError) -> CdmError:
    """Return the DiskError that tells of a failed system call."""
    return DiskError(
        f"{_name_finished(path)} cannot be written: {error.strerror or error}",
        kept="what was finished before is safe",
        next=ADVICE.get(error.errno or 0, "see to the disk, then rerun"),
    )


def _name_finished(path: Path) -> Path:
    """Return what a path is called once it is finished; who asked for it knows no other name."""
    halves = [(part, UNFINISHED.fullmatch(part)) for part in path.parts]
    whole = Path(*(half[1] if half else part for part, half in halves))
    beside = BESIDE.fullmatch(whole.name)
    return whole.with_name(beside[1]) if beside else whole


def make_directory(path: Path) -> None:
    """Create a directory and its parents, durably; an existing one is left alone."""
    with translate_disk_errors(path):
        if path.is_dir():
            return
        if path.parent != path:
            make_directory(path.parent)
        tick("mkdir", path)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    with translate_disk_errors(path), hold_open(open_directory(path)) as fd:
        tick("sync_directory", path, fd=fd)
        os.fsync(fd)


def open_directory(path: Path) -> int:
    """Open a directory, to sync or to lock it. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def pwrite_all(fd: int, path: Path, data: Bytes, offset: int) -> None:
    """Write all of data at an offset of an open file."""
    view = memoryview(data).cast("B")
    with translate_disk_errors(path):
        while len(view):
            tick("write", path, fd=fd, offset=offset, data=view)
            count = os.pwrite(fd, view[: 2**30], offset)
            view, offset = view[count:], offset + count


def begin_sync(fd: int, offset: int, size: int) -> None:
    """Have the system begin to write some bytes of an open file, so that `sync` waits less.

    They are on the disk only after `sync`. Without the system call (it is Linux's) nothing happens.
    """
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(offset), ctypes.c_int64(size), SYNC_FILE_RANGE_WRITE)


def sync(fd: int, path: Path) -> None:
    """Return once the contents of an open file are on the disk.

    Raises DiskError, and MissingError for a file that has no name any more.
    """
    with translate_disk_errors(path):
        tick("sync", path, fd=fd)
        os.fsync(fd)
        if _is_gone(fd, path):
            raise MissingError(
                f"{path} was removed or replaced while it was written",
                kept="what was in it is gone",
                next="the same command begins anew",
            )


def _is_gone(fd: int, path: Path) -> bool:
    """Whether an open file was removed; there are file systems that count no names of any file."""
    opened = os.fstat(fd)
    if opened.st_nlink:
        return False
    return not (path.exists() and os.path.samestat(path.stat(), opened))


def reserve(fd: int, path: Path, size: int) -> None:
    """Give an open file its final size and disk blocks. Raises DiskError where there is no room."""
    with translate_disk_errors(path):
        _check_free(path, os.fstatvfs(fd), size)
        tick("reserve", path, fd=fd, offset=size)
        os.posix_fallocate(fd, 0, size)


def find_existing(directory: Path) -> Path:
    """Return the directory if it exists, else the nearest one above it that does."""
    return next(each for each in (directory, *directory.absolute().parents) if each.is_dir())


def check_room(path: Path, size: int) -> None:
    """Raise, without writing, what creating a file of `size` bytes would: no directory, no room."""
    if not path.parent.is_dir():
        raise no_directory_error(path.parent)
    _check_place(path, path.parent, size)


def check_room_in(directory: Path, size: int = 0) -> None:
    """Raise, without writing, what making a directory with `size` bytes in it would."""
    _check_place(directory, find_existing(directory), size)


def _check_place(path: Path, above: Path, size: int) -> None:
    """Check that path, or what it needs, can be made in a directory above it."""
    if not os.access(above, os.W_OK | os.X_OK):
        raise disk_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with translate_disk_errors(path):
        space = os.statvfs(above)
        if not space.f_blocks:
            raise no_place_error(above / path.name)
        _check_free(path, space, size)


def _check_free(path: Path, space: os.statvfs_result, size: int) -> None:
    free = space.f_bavail * space.f_frsize
    if size > free:
        needed, there = format_disk(size), format_disk(free)
        if needed == there:  # nearly
            needed, there = f"{size:,} B", f"{free:,} B"
        raise DiskError(
            f"{_name_finished(path)} needs {needed}, {there} are free",
            kept="nothing was written",
            next="free space, or name another disk",
        )


def unlink(path: Path) -> None:
    """Remove a file if it is there."""
    with translate_disk_errors(path):
        tick("unlink", path)
        path.unlink(missing_ok=True)


def remove_tree(path: Path, first: str | None = None) -> None:
    """Remove a directory and all in it, the file `first` durably before anything else.

    Links are removed, never followed. Nothing happens if it does not exist, or is gone
    meanwhile because another process does the same.
    """
    with translate_disk_errors(path):
        if not path.is_dir() or path.is_symlink():
            return
        if first:
            unlink(path / first)
            sync_directory(path)
        for entry in sorted(_list_entries(path)):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                unlink(entry)
        tick("rmdir", path)
        with contextlib.suppress(FileNotFoundError, MissingError):
            path.rmdir()
            sync_directory(path.parent)


def _list_entries(path: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(path.iterdir())
    return []
