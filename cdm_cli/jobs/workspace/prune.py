"""`cdm prune`: removes what can be made again from a seed, never a number.

A record stays where images were (data/pruned.py): written before they go, so that a kill between
the two loses nothing, and the next run goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.cascade.saved import remove_checkpoint
from cdm_cli.cascade.stagefile import resolve_path
from cdm_cli.data import disk, lock, pruned
from cdm_cli.errors import CdmError, MissingError, StoppedError, UsageError
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.workspace.look import list_paths
from cdm_cli.jobs.workspace.ls import find_runs
from cdm_cli.jobs.workspace.removable import (
    CHECKPOINT,
    IMAGES,
    LEFTOVER,
    Item,
    Kept,
    find_in_stage,
    find_in_sweep,
    is_sweep,
)
from cdm_cli.jobs.workspace.rows import in_bytes
from cdm_cli.jobs.workspace.stages import is_stage, is_training
from cdm_cli.names import RUNS
from cdm_cli.options.workspace import PruneOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

Found = Iterator[Item | Kept]


@dataclass(frozen=True)
class Place:
    """A stage or a sweep in which something may be removed.

    busy: whether another job works in it. lock: keeps others out of it while it is entered. look:
    yields what can go, and what stays although it looks as if it could.
    """

    path: Path
    busy: Callable[[], bool]
    lock: Callable[[], AbstractContextManager[None]]
    look: Callable[[], Found]

    def find(self) -> Found:
        """Return what `look` finds, nothing of it where another job works; nothing is locked."""
        busy = Kept(self.path, "another job works in it")
        return iter([busy]) if self.busy() else self.look()


@dataclass(frozen=True)
class Prunable:
    """The plan of `cdm prune`: what can go, and what stays although it looks as if it could."""

    unshown: ClassVar = ("bytes",)

    path: Path
    bytes: int
    size: str
    remove: list[dict[str, Any]]
    kept: list[dict[str, str]]

    def make_question(self) -> str:
        """Return the question that a person is asked, "" where there is nothing to remove."""
        counts = _count_kinds(self.remove)
        return f"Remove {counts}, {self.size}?" if counts else ""

    def show_in_short(self) -> list[str | list[dict[str, Any]]]:
        """Return how much can go, then each thing, then what stays and why."""
        counts = _count_kinds(self.remove)
        first = f"{counts}, {self.size}, can go" if counts else "nothing can go"
        return [first, *_list_rows(self.remove), *_list_rows(self.kept, "kept:")]


@dataclass(frozen=True)
class PruneResult:
    """What was removed. busy: a line for each place where another job works; it was left alone."""

    unshown: ClassVar = ("bytes",)

    path: Path
    bytes: int = 0
    size: str = ""
    removed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    kept: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    busy: tuple[str, ...] = ()

    def show_in_short(self) -> list[str | list[dict[str, Any]]]:
        """Return how much was removed, and what stays and why; each was told as it went."""
        counts = _count_kinds(self.removed)
        first = f"removed {counts}, {self.size}" if counts else "nothing was removed"
        return [first, *_list_rows(self.kept, "kept:")]

    def failure(self) -> CdmError | None:
        """Return StoppedError where another job works: the same command removes the rest."""
        if not self.busy:
            return None
        return StoppedError(
            self.busy[0], kept="nothing of it was removed", next="the same command, once it ends"
        )


def plan(options: PruneOptions, report: Report) -> Prunable:
    """Return what `run` would remove. Raises MissingError where there is nothing at the path."""
    del report
    found = [each for place in _find_places(options.path) for each in place.find()]
    items = [each for each in found if isinstance(each, Item)]
    kept = [each for each in found if isinstance(each, Kept)]
    return Prunable(options.path, *_sum_up(items, kept))


def run(options: PruneOptions, report: Report) -> PruneResult:
    """Remove what can be made again: with --yes all of it, else the paths that were agreed to.

    Each stage and sweep is locked while it is looked at again and things are removed. Raises
    UsageError where neither was said, MissingError where nothing is at the path, DiskError.
    """
    if not options.yes and options.agreed is None:
        raise UsageError("prune was neither told --yes nor asked", next="--dry-run, or --yes")
    removed: list[Item] = []
    kept: list[Kept] = []
    busy: list[str] = []
    for place in _find_places(options.path):
        try:
            with place.lock():
                for each in list(place.look()):
                    if isinstance(each, Kept):
                        kept.append(each)
                    elif options.agreed is None or str(each.path) in options.agreed:
                        report.say(f"prune: {each.path}, {in_bytes(each.size)}")
                        _remove(each)
                        removed.append(each)
        except StoppedError as error:
            busy.append(error.what)
    return PruneResult(options.path, *_sum_up(removed, kept), tuple(busy))


def _remove(item: Item) -> None:
    if item.record is None:
        remove_checkpoint(item.path)
        return
    pruned.write_record(item.path, item.record)
    disk.unlink(item.path)
    disk.sync_directory(item.path.parent)


def _find_places(path: Path) -> Iterator[Place]:
    """Yield the stages and sweeps of a path. Raises MissingError where none can be."""
    path = resolve_path(path, Path(RUNS))
    if not path.is_dir():
        raise MissingError(f"{path} is no directory", next="cdm prune, in a workspace")
    alone = is_stage(path) or is_sweep(path)
    workspace = path.parent if is_sweep(path) else Path() if alone else path
    runs = find_runs(workspace)
    for home in [path] if alone else dict.fromkeys([*list_paths(runs), *list_paths(path)]):
        if is_stage(home):
            busy, locked = partial(is_training, home), partial(hold_lock, home)
            yield Place(home, busy, locked, partial(find_in_stage, home, workspace))
        elif is_sweep(home):
            busy, locked = (
                partial(lock.is_in_use, home),
                partial(lock.hold_directory, home, alone=True),
            )
            yield Place(home, busy, locked, partial(find_in_sweep, home, workspace, runs))


def _sum_up(
    items: Sequence[Item], kept: Sequence[Kept]
) -> tuple[int, str, list[dict[str, Any]], list[dict[str, str]]]:
    """Return the bytes of all items, the same in words, a row for each, and why others stay."""
    size = sum(item.size for item in items)
    rows = [
        {"path": str(item.path), "what": item.what, "size": in_bytes(item.size), "bytes": item.size}
        for item in items
    ]
    return size, in_bytes(size), rows, [{"path": str(each.path), "why": each.why} for each in kept]


def _list_rows(
    rows: Sequence[Mapping[str, Any]], name: str = ""
) -> list[str | list[dict[str, Any]]]:
    """Return rows as a person reads them, below their name; nothing where there are none."""
    shown = [{title: row[title] for title in row if title != "bytes"} for row in rows]
    return ["", *([name] if name else []), shown] if shown else []


def _count_kinds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of each kind there are: "3 checkpoints and the images of 6 points"."""
    said = {
        CHECKPOINT: ("", "old checkpoint"), LEFTOVER: ("", "unfinished checkpoint"),
        IMAGES: ("the images of ", "judged point"),
    }  # fmt: skip
    kinds = [row["what"] for row in rows]
    numbers = {kind: kinds.count(kind) for kind in said if kind in kinds}
    return " and ".join(
        said[kind][0] + format_count(num, said[kind][1]) for kind, num in numbers.items()
    )
