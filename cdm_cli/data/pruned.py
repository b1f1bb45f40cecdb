"""The record of a store whose images were pruned: what they were, and how to make them again.

`samples.h5.pruned` is a JSON file beside the place of `samples.h5`. It says nothing where a store
is there again.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdm_cli.data import durable
from cdm_cli.errors import MissingError
from cdm_cli.translation import no_input
from cdm_cli.units import format_count

SUFFIX = ".pruned"
LIMIT = 2**23


@dataclass(frozen=True)
class Pruned:
    """A store that was pruned: its number of samples, bytes and digest, and its provenance.

    command: what makes it again, of the weights that made it. numbers: the file that keeps what
    it was judged by.
    """

    num: int
    resolution: int
    size: int
    digest: str
    command: str
    numbers: str
    provenance: dict[str, Any]


def place_record(path: Path) -> Path:
    """Return where the record of a store is."""
    return path.with_name(path.name + SUFFIX)


def write_record(path: Path, pruned: Pruned) -> None:
    """Write the record of a store that is about to be removed, whole or not at all."""
    data = json.dumps(asdict(pruned), indent=1, allow_nan=False) + "\n"
    durable.write_file_atomically(place_record(path), data.encode())


def read_record(path: Path) -> Pruned | None:
    """Return the record of a store that was pruned; None if the store is there, or no good one."""
    if os.path.lexists(path):
        return None
    try:
        with open(place_record(path), "rb", opener=_open_unlinked) as file:
            values: Any = json.loads(file.read(LIMIT))
        found = Pruned(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    right = all(isinstance(getattr(found, name), kind) for name, kind in KINDS.items())
    return found if right else None


KINDS = {"num": int, "resolution": int, "size": int, "digest": str, "command": str,
         "numbers": str, "provenance": dict}  # fmt: skip


def _open_unlinked(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def missing_error(path: Path) -> MissingError:
    """Return the MissingError for a store that is not there, and say so if it was pruned."""
    found = read_record(path)
    if found is None:
        return no_input(path)
    return MissingError(
        f"{path} was pruned: its {format_count(found.num, 'image', 'were')} removed",
        kept=f"its numbers are in {path.with_name(Path(found.numbers).name)}",
        next=found.command,
    )
