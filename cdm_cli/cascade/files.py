"""Reading the files of a stage directory, which may come from strangers.

A stage directory holds regular files only: a link, a pipe or a device in their place would
make us read elsewhere, or wait for ever.
"""

import os
from io import BufferedReader
from pathlib import Path

from cdm_cli.data.reading import open_regular
from cdm_cli.errors import BadInputError


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file for reading, not following a link.

    Raises MissingError, BadInputError or DiskError where the system refuses to open it, and
    UnsafeInputError for a link, a pipe, a directory or a device.
    """
    return os.fdopen(open_regular(path, follow=False), "rb")


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
