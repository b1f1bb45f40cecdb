"""Rows of `cdm ls` for stores, and for those whose images were pruned."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.data import pruned
from cdm_cli.data.guard import describe_foreign, vet
from cdm_cli.data.lock import is_held
from cdm_cli.data.part import Part
from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.jobs.workspace.look import find_newest
from cdm_cli.jobs.workspace.rows import BROKEN, Row, describe_or_tell_why
from cdm_cli.jobs.workspace.scores import Scores
from cdm_cli.options.outputs import STORES

STORE, PRUNED, FOREIGN = "store", "pruned", "not a store"


def is_store_name(path: Path) -> bool:
    """Whether the name of a file is that of a store."""
    return path.suffix.lower() in STORES


def open_unlinked(path: Path) -> Store:
    """Open a store, but follow no link. Raises CdmError as `open_store` does, and for a link."""
    with open_regular_file(path) as file:
        return Store(vet(os.dup(file.fileno()), path))


def describe_store(path: Path, scores: Scores) -> Row:
    """Return the row of a store; where it cannot be read, a row that says why.

    A file that another program made is "not a store", with what it looks like.
    """
    size, when = path.lstat().st_size, find_newest(path)
    row = describe_or_tell_why(
        path.name, STORE, lambda: _describe(path, scores), size=size, when=when
    )
    look = ""
    if row.state == BROKEN:
        with suppress(CdmError, OSError):
            look = describe_foreign(path)
    return replace(row, kind="file", state=FOREIGN, note=look) if look else row


def _describe(path: Path, scores: Scores) -> Row:
    with open_regular_file(path) as file, Store(vet(os.dup(file.fileno()), path)) as store:
        parts = store.parts.values()
        done, num = sum(map(count_done, parts)), sum(part.num for part in parts)
        busy = done < num and is_held(file.fileno())
        score = scores.get(store.digest) if scores and done == num else None
        found = os.fstat(file.fileno())
        return Row(
            name=path.name,
            kind=store.kind,
            resolution=", ".join(map(str, sorted({r for part in parts for r in part.resolutions}))),
            done=done,
            of=num,
            state="being written" if busy else "finished" if done == num else "unfinished",
            fid=score.fid if score else None,
            size=found.st_size,
            made_from=tuple(row["name"] for row in list_parents(store.provenance)),
            when=found.st_mtime,
        )


def count_done(part: Part) -> int:
    """Return how many samples of a part are in finished blocks."""
    return part.num - sum(len(part.list_rows(b)) for b in part.list_missing())


def describe_pruned(path: Path, scores: Scores) -> Row | None:
    """Return the row of a store whose images were pruned, from its record; None without one."""
    found = pruned.read_record(path)
    if found is None:
        return None
    score = scores.get(found.digest)
    return Row(
        name=path.name,
        kind="samples",
        resolution=str(found.resolution),
        done=0,
        of=found.num,
        state=PRUNED,
        fid=score.fid if score else None,
        made_from=tuple(row["name"] for row in list_parents(found.provenance)),
        when=find_newest(pruned.place_record(path)),
    )
