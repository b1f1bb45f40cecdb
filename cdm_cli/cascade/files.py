"""Reading the files of a stage directory, which may come from strangers.

A stage directory holds regular files only: a link, a pipe or a device in their place would
make us read elsewhere, or wait for ever.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path

from cdm_cli.errors import BadInputError, MissingError, UnsafeInputError


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file for reading, not following a link.

    Raises MissingError, or UnsafeInputError for a link, a pipe, a directory or a device.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise _irregular_error(path)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"{path} does not exist", next="check the path") from None
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}", next="check it") from None
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise _irregular_error(path)
    return file


def _irregular_error(path: Path) -> UnsafeInputError:
    return UnsafeInputError(
        f"{path} is not a regular file", kept="it was not opened", next="put a copy in its place"
    )


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole regular file of at most limit bytes, or raise as `open_regular_file` does."""
    with open_regular_file(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadInputError(
            f"{path} is longer than {limit} bytes",
            kept="nothing was taken from it",
            next="check it",
        )
    return data
