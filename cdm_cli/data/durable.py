"""Whole files, written so that a kill or a power cut at any moment leaves no half of one.

Every file is written through this module and `data/disk.py`: it appears under its name complete
and synced, or not at all; bytes written in place are synced before anything says that they are
there. A full or failing disk raises DiskError, and leaves no litter.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
from collections.abc import Generator
from functools import partial as bound
from pathlib import Path

from cdm_cli.data.disk import (
    Bytes,
    hold_open,
    no_place_error,
    pwrite_all,
    remove_tree,
    sync,
    sync_directory,
    tick,
    translate_disk_errors,
    unlink,
)
from cdm_cli.data.renaming import name_new, rename
from cdm_cli.errors import CdmError, WouldOverwriteError, quote
from cdm_cli.signals import begin_unless_left, undo_if_left

PARTIAL = ".partial"
TRIES = 10
NO_SECOND_NAME = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EMLINK}


@contextlib.contextmanager
def make_partial(
    path: Path, *, swept: bool = False, directory: bool = False
) -> Generator[tuple[int, Path], None, None]:
    """Create a file, or directory, beside path and lock it; yield its descriptor and its path.

    The body fills it and gives it its name by `rename` or `rename_new`; if the body fails, or a
    signal ends the program, it is removed. What killed processes left for this path is removed
    first; swept: the caller has done that for the whole directory (`sweep`).
    """
    made: list[Path] = []
    with undo_if_left(lambda: [discard(one) for one in made]):
        with translate_disk_errors(path):
            if not swept:
                sweep(path.parent, f".{path.name}.")
            fd, temporary = _make_locked(path, made, directory=directory)
        try:
            yield fd, temporary
        except BaseException:
            discard(temporary)
            raise
        finally:
            os.close(fd)


def discard(temporary: Path) -> None:
    """Remove what will not be finished, as far as that can be done.

    A thread may still fill a directory, with a file that comes after those that were listed.
    """
    for _ in range(TRIES):
        with contextlib.suppress(OSError, CdmError):
            if temporary.is_dir():
                remove_tree(temporary)
            else:
                temporary.unlink(missing_ok=True)
        if not os.path.lexists(temporary):
            return


def _make_locked(path: Path, made: list[Path], *, directory: bool) -> tuple[int, Path]:
    """Make something beside path and lock it; again, where another process swept it meanwhile.

    made: has its name from before it is there.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        made.append(temporary)
        tick("mkdir" if directory else "create", temporary)
        if directory:
            with begin_unless_left():
                temporary.mkdir()
        how = os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT | os.O_EXCL
        swept = (FileNotFoundError,) if directory else ()  # a file is made and opened in one step
        with contextlib.suppress(*swept):
            with begin_unless_left():
                fd = _open(temporary, how | os.O_CLOEXEC, path)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.lexists(temporary):
                return fd, temporary
            os.close(fd)


def _open(temporary: Path, how: int, path: Path) -> int:
    try:
        return os.open(temporary, how, 0o666)
    except FileNotFoundError:
        if how & os.O_CREAT and path.parent.is_dir():
            raise no_place_error(path) from None
        raise


def is_unfinished(name: str) -> bool:
    """Return whether a file or directory of this name is one that `make_partial` made."""
    return name.startswith(".") and name.endswith(PARTIAL)


def list_finished(directory: Path) -> list[str]:
    """Return the names in a directory, without unfinished files that a killed process left."""
    return [name for name in os.listdir(directory) if not is_unfinished(name)]


def sweep(directory: Path, prefix: str = ".") -> None:
    """Remove what `make_partial` made in a directory, where its writer and so its lock are gone."""
    for name in os.listdir(directory):
        if not (name.startswith(prefix) and is_unfinished(name)):
            continue
        found = directory / name
        with contextlib.suppress(OSError):
            fd = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with hold_open(fd):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (remove_tree if found.is_dir() else unlink)(found)


def find_free_name(path: Path) -> Path:
    """Return a name that no file has, made from that of one that exists: report-2.html.

    No file has its stem either, as the log of a search, or the record of a pruned store, would.
    """
    named = path if path.name.strip(".") else path.resolve()
    if not named.name:  # the root
        named /= "new"
    stems = _list_stems(named.parent)
    free = (number for number in itertools.count(2) if f"{named.stem}-{number}" not in stems)
    return named.with_stem(f"{named.stem}-{next(free)}")


def _list_stems(directory: Path) -> set[str]:
    """Return the names in a directory, whole and up to each of their dots."""
    try:
        names = [name.split(".") for name in os.listdir(directory)]
    except OSError:  # who may not see it learns that from what is written there
        return set()
    return {".".join(words[:end]) for words in names for end in range(1, len(words) + 1)}


def write_file_atomically(path: Path, data: Bytes) -> None:
    """Replace the contents of a file; readers see all of the old or all of the new."""
    with make_partial(path) as (fd, temporary):
        pwrite_all(fd, temporary, data, 0)
        sync(fd, temporary)
        rename(temporary, path)


def write_over_own(path: Path, data: Bytes, mark: bytes, head: int, what: str) -> None:
    """Write a file, over one that has `mark` among its first `head` bytes.

    Raises WouldOverwriteError where the name is that of anything else. what: the file in words.
    """
    if path.exists() and not (path.is_file() and _has_mark(path, mark, head)):
        raise WouldOverwriteError(
            f"{path} exists and is no {what}",
            kept="it is untouched",
            next=f"-o {quote(find_free_name(path))}",
        )
    write_file_atomically(path, data)


def _has_mark(path: Path, mark: bytes, head: int) -> bool:
    with path.open("rb") as file:
        return mark in file.read(head)


def link_file_atomically(source: Path, target: Path) -> None:
    """Let target be a second name of source, replacing a file of that name; readers see no gap.

    Where the file system has no second names, target is a copy.
    """
    with translate_disk_errors(target):
        sweep(target.parent, f".{target.name}.")
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        with undo_if_left(bound(discard, temporary)):
            tick("link", source, target=temporary)
            try:
                with begin_unless_left():
                    os.link(source, temporary, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_SECOND_NAME:
                    raise
                return _copy(source, target)
            try:
                rename(temporary, target)
            except BaseException:
                discard(temporary)
                raise


def _copy(source: Path, target: Path) -> None:
    with make_partial(target) as (fd, temporary), source.open("rb") as file:
        offset = 0
        while piece := file.read(2**24):
            pwrite_all(fd, temporary, piece, offset)
            offset += len(piece)
        sync(fd, temporary)
        rename(temporary, target)


def write_new(path: Path, data: Bytes) -> None:
    """Write one of many files: complete and synced, or not at all; raises ExistsError.

    The caller sweeps and syncs its directory, once for all of them.
    """
    with make_partial(path, swept=True) as (fd, temporary):
        pwrite_all(fd, temporary, data, 0)
        sync(fd, temporary)
        name_new(temporary, path)


def append(path: Path, data: Bytes) -> None:
    """Append to a file, creating it, durably; a kill may leave the last piece half written."""
    with translate_disk_errors(path):
        new = not path.exists()
        tick("create", path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with hold_open(fd):
            pwrite_all(fd, path, data, os.fstat(fd).st_size)
            sync(fd, path)
        if new:
            sync_directory(path.parent)
