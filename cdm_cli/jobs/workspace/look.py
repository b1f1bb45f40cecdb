"""Looking into directories and files that may come from strangers: no link is followed.

What is read has limits: names of a directory, files of a tree, bytes of a file.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cdm_cli.cascade.files import open_regular_file, read_bytes
from cdm_cli.errors import BadInputError

MOST_NAMES = 10_000  # of a directory
MOST_FILES = 100_000  # of a tree, whose sizes are summed
JSON_LIMIT = 2**23  # JSON in memory is up to thirty times as large
TAIL = 2**18


def list_paths(directory: Path) -> list[Path]:
    """Return the paths in a directory, by name, without hidden ones; [] where it cannot be read.

    At most MOST_NAMES names are looked at.
    """
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        seen = islice((entry.name for entry in found if not entry.name.startswith(".")), MOST_NAMES)
        return [directory / name for name in sorted(seen)]
    return []


def is_directory(path: Path) -> bool:
    """Whether a path is a directory, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, not a link to one."""
    return path.is_file() and not path.is_symlink()


def measure_size(directory: Path) -> int:
    """Return the bytes of all files in a directory and below it, of at most MOST_FILES files.

    A file that is gone meanwhile counts nothing.
    """
    paths = (Path(home, name) for home, _, names in os.walk(directory) for name in names)
    total = 0
    for path in islice(paths, MOST_FILES):
        with contextlib.suppress(OSError):  # gone meanwhile
            total += path.lstat().st_size
    return total


def find_newest(*paths: Path) -> float | None:
    """Return when the last of some files was changed, in seconds since 1970; None without files."""
    times: list[float] = []
    for path in paths:
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times, default=None)


def read_json_object(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Return the JSON object in a file. Raises BadInputError for anything else, or too large."""
    try:
        found: Any = json.loads(read_bytes(path, limit))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadInputError(f"{path} holds no JSON object", next="restore it")
    return found


def read_last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects in the last TAIL bytes of a file of JSON lines; none without that file.

    A line that holds no object, as the first one that is cut, is left out.
    """
    if not is_file(path):
        return
    with open_regular_file(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read(TAIL).splitlines()
    for line in lines:
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
