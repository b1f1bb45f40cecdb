"""Unpacking to a file next to the output, where images must be readable in any order."""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from cdm_cli.data import disk, durable
from cdm_cli.errors import DiskError


@contextmanager
def spool_beside(out: Path) -> Generator[Path]:
    """Create an empty file beside out, for this process alone; remove it in the end.

    Files that killed processes left are removed first.
    """
    with durable.make_partial(out.with_name(f"{out.name}.unpacked")) as (_, spool):
        try:
            yield spool
        finally:
            disk.unlink(spool)


def write_spool(parts: Iterable[bytes], spool: Path) -> Path:
    """Write parts to a file of this command's own, and return it. Raises DiskError.

    Nothing is synced: a command that was interrupted unpacks again.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(spool, flags, 0o600), "wb") as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        text = f"{spool} cannot be written: {error.strerror}"
        raise DiskError(text, next="free space, or unpack the source yourself") from error
    return spool
