"""Errors of Python, torch and the system, as what a person can do about them."""

import errno
import os
import resource
from contextlib import suppress
from itertools import islice
from pathlib import Path

from cdm_cli.errors import (
    CdmError,
    DiskError,
    MemoryFloorError,
    MismatchError,
    MissingError,
    is_out_of_memory,
)
from cdm_cli.names import DATA, LOWRES, RUNS, SAMPLES
from cdm_cli.sentences import find_near

NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
MADE_BY = {
    DATA: "cdm prepare SRC makes it",
    LOWRES: "cdm sample makes it",
    SAMPLES: "cdm upsample makes it",
    RUNS: "cdm train makes it",
}
LOOKED_AT = 1000  # names of a directory, at most, among which a mistyped one is looked for
OTHER_BUILD = "torchvision::"  # an operator of torchvision that this torch does not know


def as_cdm_error(error: Exception) -> CdmError:
    """Return the CdmError of an exception that no job has translated, with what a person can do."""
    if isinstance(error, CdmError):
        return error
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    if is_out_of_memory(error):
        return MemoryFloorError(f"not enough memory: {words}", next=_more_memory())
    if OTHER_BUILD in words:
        return MismatchError(
            f"torch and torchvision are not of one build ({words})",
            next="install both anew, from one index",
        )
    if isinstance(error, OSError) and error.errno in NOT_THERE and error.filename:
        return no_input(Path(os.fsdecode(error.filename)))
    if isinstance(error, OSError) and error.filename is not None:
        return DiskError(f"{error.filename}: {error.strerror}", next="check the file and the disk")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return DiskError(f"{error.strerror}", next="free space and run the same command again")
    return CdmError(f"this is a bug: {type(error).__name__}: {words}", next="rerun with --debug")


def no_input(path: Path) -> MissingError:
    """Return the error of an input that does not exist: its nearest name, and what makes it."""
    next = MADE_BY.get(path.name, "cdm ls lists what is here and what it is")
    if os.path.islink(path):
        there = os.path.exists(path)
        fault = "is a link, and is not followed" if there else "is a link that leads nowhere"
        return MissingError(f"{path} {fault}", next=next)
    names = list[str]()
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, LOOKED_AT)]
    found = find_near(path.name, names)
    meant = f"; did you mean {path.with_name(found[0])}?" if found else ""
    return MissingError(f"{path} does not exist{meant}", next=next)


def _more_memory() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        return f"raise the limit of this shell, {limit // 1024} KiB: ulimit -v unlimited"
    return "a smaller --batch-size, fewer images at once, or a machine with more memory"
