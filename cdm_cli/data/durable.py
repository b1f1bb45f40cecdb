"""The one layer through which every file is written.

Whatever is written here survives a kill and a power cut at any moment: a file appears under
its name complete and synced, or not at all; bytes written in place are synced before anything
that says they are there. A full or failing disk raises DiskError, and leaves no litter.

Every system call that changes a disk is announced to a hook first. It does nothing, except in
tests, where it kills, tears or fails each of them in turn.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Generator
from functools import partial as bound
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.errors import CdmError, DiskError, MissingError, quoted
from cdm_cli.signals import undone_if_left

PARTIAL = ".partial"
RENAME_NOREPLACE, AT_FDCWD = 1, -100
NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space, then rerun"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "write where you may"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR), "a name that is free"),
    errno.ENAMETOOLONG: "a shorter name",
}
Bytes = bytes | memoryview


class Io(NamedTuple):
    """One system call that is about to change a disk."""

    kind: str
    path: Path
    fd: int = -1
    offset: int = 0
    data: Bytes = b""
    target: Path | None = None


class ExistsError(Exception):
    """The new name of a file is taken."""


Hook = Callable[[Io], None]


def _silent(io: Io) -> None:
    del io


_hooks: list[Hook] = [_silent]


def tick(kind: str, path: Path, **details: Any) -> None:
    """Announce a system call to the hook in force."""
    _hooks[-1](Io(kind, path, **details))


@contextlib.contextmanager
def hooked(hook: Hook) -> Generator[None, None, None]:
    """Announce every system call to hook, for the duration of a test."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None, None, None]:
    """Turn an OSError into DiskError, or MissingError where the directory does not exist."""
    try:
        yield
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise no_directory(path.parent) from error
        raise MissingError(f"{path} does not exist", next="see what removed it") from error
    except OSError as error:
        raise disk_error(path, error) from error


def no_directory(path: Path) -> MissingError:
    """Return the error of a directory that does not exist."""
    return MissingError(f"{path} does not exist", next=f"mkdir -p {quoted(path)}")


def _no_place(path: Path) -> DiskError:
    """Return the error of a directory that lets nobody make files, as those of /proc do."""
    return DiskError(
        f"{path.parent} takes no new files", kept="nothing was written", next="write elsewhere"
    )


def disk_error(path: Path, error: OSError) -> CdmError:
    """Return the DiskError that tells of a failed system call."""
    return DiskError(
        f"{path} cannot be written: {error.strerror or error}",
        kept="what was finished before is safe",
        next=ADVICE.get(error.errno or 0, "see to the disk, then rerun"),
    )


def make_directory(path: Path) -> None:
    """Create a directory and its parents, durably; an existing one is left alone."""
    with disk_errors(path):
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
    with disk_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            tick("sync_directory", path, fd=fd)
            os.fsync(fd)
        finally:
            os.close(fd)


def pwrite_all(fd: int, path: Path, data: Bytes, offset: int) -> None:
    """Write all of data at an offset of an open file."""
    view = memoryview(data).cast("B")
    with disk_errors(path):
        while len(view):
            tick("write", path, fd=fd, offset=offset, data=view)
            count = os.pwrite(fd, view[: 2**30], offset)
            view, offset = view[count:], offset + count


def sync(fd: int, path: Path) -> None:
    """Return once the contents of an open file are on the disk."""
    with disk_errors(path):
        tick("sync", path, fd=fd)
        os.fsync(fd)


def reserve(fd: int, path: Path, size: int) -> None:
    """Give an open file its final size, and the disk blocks for it."""
    with disk_errors(path):
        _check_free(path, os.fstatvfs(fd), size)
        tick("reserve", path, fd=fd, offset=size)
        os.posix_fallocate(fd, 0, size)


def existing(directory: Path) -> Path:
    """Return a directory that is to be made, or the nearest one above it that is there."""
    return next(each for each in (directory, *directory.absolute().parents) if each.is_dir())


def check_room(path: Path, size: int) -> None:
    """Raise what making a file of this size will, writing nothing: no directory, no room."""
    if not path.parent.is_dir():
        raise no_directory(path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise disk_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with disk_errors(path):
        space = os.statvfs(path.parent)
        if not space.f_blocks:
            raise _no_place(path)
        _check_free(path, space, size)


def _check_free(path: Path, space: os.statvfs_result, size: int) -> None:
    free = space.f_bavail * space.f_frsize
    if size > free:
        raise DiskError(
            f"{path} needs {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free",
            kept="nothing was written",
            next="free space, or name another disk",
        )


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file of that name, and make it durable."""
    with disk_errors(target):
        tick("rename", source, target=target)
        source.replace(target)
        sync_directory(target.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename, durably, or raise ExistsError if there is a file of that name."""
    with disk_errors(target):
        name_new(source, target)
        sync_directory(target.parent)


def name_new(source: Path, target: Path) -> None:
    """Rename, or raise ExistsError; durable only once the directory was synced.

    Where the file system cannot do so in one step: a second name, then remove the first.
    """
    with disk_errors(target):
        tick("rename", source, target=target)
        try:
            if not _renameat2(source, target):
                _rename_in_steps(source, target)
        except FileExistsError:
            raise ExistsError(target) from None


def _rename_in_steps(source: Path, target: Path) -> None:
    if source.is_dir():  # has no second name
        if os.path.lexists(target):
            raise FileExistsError(target)
        source.rename(target)
    else:
        os.link(source, target, follow_symlinks=False)
        source.unlink()


def _renameat2(source: Path, target: Path) -> bool:
    """Rename without replacing; False where the kernel or file system does not know how."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if call(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_SUCH_CALL:
        return False
    raise OSError(code, os.strerror(code), str(target))


def unlink(path: Path) -> None:
    """Remove a file if it is there."""
    with disk_errors(path):
        tick("unlink", path)
        path.unlink(missing_ok=True)


def remove_tree(path: Path, first: str | None = None) -> None:
    """Remove a directory and all in it, the file `first` durably before anything else.

    Links are removed, never followed. Nothing happens if it does not exist, or is gone
    meanwhile because another process does the same.
    """
    with disk_errors(path):
        if not path.is_dir() or path.is_symlink():
            return
        if first:
            unlink(path / first)
            sync_directory(path)
        for entry in sorted(_entries(path)):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                unlink(entry)
        tick("rmdir", path)
        with contextlib.suppress(FileNotFoundError, MissingError):
            path.rmdir()
            sync_directory(path.parent)


def _entries(path: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(path.iterdir())
    return []


@contextlib.contextmanager
def partial(
    path: Path, *, swept: bool = False, directory: bool = False
) -> Generator[tuple[int, Path], None, None]:
    """Open a new file, or directory, beside path, locked by this process: (descriptor, its name).

    The body fills it and gives it its name by `rename` or `rename_new`; if it fails, or a signal
    ends the program, it is removed. Those of processes that were killed are removed first, unless
    the caller did so for all that are in the same place (`sweep`).
    """
    with disk_errors(path):
        if not swept:
            sweep(path.parent, f".{path.name}.")
        fd, temporary = _locked_new(path, directory=directory)
    try:
        with undone_if_left(bound(_discard, temporary)):
            yield fd, temporary
    except BaseException:
        _discard(temporary)
        raise
    finally:
        os.close(fd)


def _discard(temporary: Path) -> None:
    """Remove what will not be finished, as far as that can be done."""
    with contextlib.suppress(OSError, CdmError):
        if temporary.is_dir():
            remove_tree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _locked_new(path: Path, *, directory: bool) -> tuple[int, Path]:
    """Make something beside path and lock it; again, where another process swept it meanwhile."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        tick("mkdir" if directory else "create", temporary)
        if directory:
            temporary.mkdir()
        how = os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT | os.O_EXCL
        swept = (FileNotFoundError,) if directory else ()  # a file is made and opened in one step
        with contextlib.suppress(*swept):
            fd = _opened(temporary, how | os.O_CLOEXEC, path)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.lexists(temporary):
                return fd, temporary
            os.close(fd)


def _opened(temporary: Path, how: int, path: Path) -> int:
    try:
        return os.open(temporary, how, 0o666)
    except FileNotFoundError:
        if how & os.O_CREAT and path.parent.is_dir():
            raise _no_place(path) from None
        raise


def unfinished(name: str) -> bool:
    """Whether a file or directory of this name is one that `partial` made."""
    return name.startswith(".") and name.endswith(PARTIAL)


def finished_names(directory: Path) -> list[str]:
    """Return the names in a directory but those that `partial` made: a kill leaves them."""
    return [name for name in os.listdir(directory) if not unfinished(name)]


def sweep(directory: Path, prefix: str = ".") -> None:
    """Remove what `partial` made in a directory and whose writer is gone: its lock went with it."""
    for name in os.listdir(directory):
        if not (name.startswith(prefix) and unfinished(name)):
            continue
        found = directory / name
        with contextlib.suppress(OSError):
            fd = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (remove_tree if found.is_dir() else unlink)(found)
            finally:
                os.close(fd)


def write_file_atomically(path: Path, data: Bytes) -> None:
    """Replace the contents of a file; readers see all of the old or all of the new."""
    with partial(path) as (fd, temporary):
        pwrite_all(fd, temporary, data, 0)
        sync(fd, temporary)
        rename(temporary, path)


def write_new(path: Path, data: Bytes) -> None:
    """Write one of many files: complete and synced, or not at all; raises ExistsError.

    The caller sweeps and syncs its directory, once for all of them.
    """
    with partial(path, swept=True) as (fd, temporary):
        pwrite_all(fd, temporary, data, 0)
        sync(fd, temporary)
        name_new(temporary, path)


def append(path: Path, data: Bytes) -> None:
    """Append to a file, creating it, durably; a kill may leave the last piece half written."""
    with disk_errors(path):
        new = not path.exists()
        tick("create", path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            pwrite_all(fd, path, data, os.fstat(fd).st_size)
            sync(fd, path)
        finally:
            os.close(fd)
        if new:
            sync_directory(path.parent)
