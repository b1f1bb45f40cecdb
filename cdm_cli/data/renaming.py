"""New names for files, durably: over a file of that name, or only where there is none."""

import ctypes
import errno
import os
from pathlib import Path

from cdm_cli.data.disk import sync_directory, tick, translate_disk_errors

RENAME_NOREPLACE, AT_FDCWD = 1, -100
NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class ExistsError(Exception):
    """The new name of a file is taken."""


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file of that name, and make it durable."""
    with translate_disk_errors(target):
        tick("rename", source, target=target)
        source.replace(target)
        sync_directory(target.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename, durably, or raise ExistsError if there is a file of that name."""
    with translate_disk_errors(target):
        name_new(source, target)
        sync_directory(target.parent)


def name_new(source: Path, target: Path) -> None:
    """Rename, or raise ExistsError; durable only once the caller has synced the directory.

    Where the file system cannot do so in one step, a file gets a second name and loses the first.
    """
    with translate_disk_errors(target):
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
