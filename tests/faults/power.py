"""A disk whose power may fail: what was not synced may be there, or not, or in another order.

The calls of a whole run are replayed up to a moment. Of the writes to a file since it was last
synced, and of the changes to a directory since that was, any subset may have reached the disk;
a write may be cut. What was synced is there. The job then runs again on what is left.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from cdm_cli.data import disk
from tests.faults.harness import Bench, Tally, chosen
from tests.faults.promises import broken_promises

Keep = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass
class File:
    """Bytes on the disk, and the changes that may not be there yet: (offset, data) or a size."""

    solid: bytearray = field(default_factory=bytearray)
    loose: list[tuple[int, bytes] | int] = field(default_factory=list)

    def sync(self) -> None:
        """Put every change on the disk."""
        _apply(self.solid, self.loose)
        self.loose.clear()

    def after(self, keep: Keep) -> bytes:
        """Return what is found after the power failed."""
        left = bytearray(self.solid)
        _apply(left, keep(self.loose))
        return bytes(left)


def _apply(data: bytearray, changes: Iterable[tuple[int, bytes] | int]) -> None:
    for change in changes:
        offset, piece = (change, b"") if isinstance(change, int) else change
        data.extend(bytes(max(0, offset + len(piece) - len(data))))
        data[offset : offset + len(piece)] = piece


@dataclass
class Directory:
    """Names now, names on the disk, and the changes between: {name: what, or None} each."""

    now: dict[str, Any] = field(default_factory=dict)
    solid: dict[str, Any] = field(default_factory=dict)
    loose: list[dict[str, Any]] = field(default_factory=list)

    def change(self, names: dict[str, Any]) -> None:
        """Change some names at once."""
        _rename(self.now, names)
        self.loose.append(names)

    def sync(self) -> None:
        """Put every change on the disk."""
        self.solid = dict(self.now)
        self.loose.clear()

    def after(self, keep: Keep) -> dict[str, Any]:
        """Return the names that are found after the power failed."""
        left = dict(self.solid)
        for names in keep(self.loose):
            _rename(left, names)
        return left


def _rename(names: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, what in changes.items():
        names.pop(name, None)
        if what is not None:
            names[name] = what


class Disk:
    """The tree below a directory, as the calls of a run leave it."""

    def __init__(self, inputs: Path, home: Path) -> None:
        self.home, self.root = home, _solid(inputs)
        self._open: dict[Path, File] = {}  # by the name that a file had when it was opened

    def _find(self, path: Path) -> Any:
        node: Any = self.root
        for part in (self.home / path).relative_to(self.home).parts:
            node = node.now.get(part)
        return node

    def do(self, io: disk.Io) -> None:
        """Take one call, as if it was made."""
        parent = self._find(io.path.parent) if io.path.name else None
        found = self._find(io.path)
        if io.kind in ("create", "mkdir") and found is None:
            found = Directory() if io.kind == "mkdir" else File()
            parent.change({io.path.name: found})
        if io.kind in ("write", "reserve", "sync"):
            self._open[io.path] = file = found or self._open.get(io.path, File())
            self._change(io, file)
        elif io.kind == "sync_directory":
            found.sync()
        elif io.kind == "rename":
            assert io.target is not None
            parent.change({io.path.name: None, io.target.name: found})
        elif io.kind == "link":
            assert io.target is not None
            self._find(io.target.parent).change({io.target.name: found})
        elif io.kind in ("unlink", "rmdir") and found is not None:
            parent.change({io.path.name: None})

    def _change(self, io: disk.Io, file: File) -> None:
        if io.kind == "sync":
            file.sync()
        else:
            file.loose.append((io.offset, bytes(io.data)) if io.data else io.offset)

    def fail(self, where: Path, keep: Keep) -> None:
        """Write what is left once the power has failed."""
        _write(self.root, where, keep)


def _solid(path: Path) -> Any:
    if path.is_file():
        return File(bytearray(path.read_bytes()))
    names = {entry.name: _solid(entry) for entry in path.iterdir()}
    return Directory(now=names, solid=dict(names))


def _write(node: Any, where: Path, keep: Keep) -> None:
    if isinstance(node, File):
        where.write_bytes(node.after(keep))
        return
    where.mkdir()
    for name, inside in node.after(keep).items():
        _write(inside, where / name, keep)


def nothing(loose: Sequence[Any]) -> Iterable[Any]:
    """Lose whatever was not synced."""
    return ()


def everything(loose: Sequence[Any]) -> Iterable[Any]:
    """Lose nothing."""
    return loose


def newest(loose: Sequence[Any]) -> Iterable[Any]:
    """Lose all but the last change: it overtook the others."""
    return loose[-1:]


def some(seed: int) -> Keep:
    """Lose about half of it, and cut half of the writes that stay."""
    rng = random.Random(seed)

    def keep(loose: Sequence[Any]) -> Iterable[Any]:
        for change in loose:
            if rng.random() < 0.5:
                whole = not isinstance(change, tuple) or rng.random() < 0.5
                yield change if whole else (change[0], change[1][: rng.randrange(len(change[1]))])

    return keep


WAYS = (nothing, everything, newest, *(some(seed) for seed in range(3)))


def every_failure(name: str, home: Path, most: int, reruns: int) -> Tally:
    """Fail the power at about `most` moments, in every way; run the job again after `reruns`.

    After one way of each of those moments, the ways taking turns.
    """
    start, bench = time.monotonic(), Bench(name, home)
    tally, turns = Tally(f"{name}, power", calls=len(bench.calls)), count()
    moments = chosen(bench.calls, most)
    rerun = {*chosen(bench.calls, reruns), len(bench.log)} if reruns else set()
    disk, done = Disk(bench.inputs, bench.home / "1"), 0
    for moment in [*moments, len(bench.log)]:
        for io in bench.log[done:moment]:
            disk.do(io)
        done = moment
        tried = WAYS[next(turns) % len(WAYS)]  # the way after which the job runs again
        for way in WAYS:
            where = bench.home / "after"
            disk.fail(where, way)
            faults = broken_promises(where, bench.calls[:moment], bench.inputs)
            if moment in rerun and way is tried:
                faults += bench.again(where, bench.calls[:moment])
            tally.count("power", faults, f"call {moment}")
            shutil.rmtree(where)
    tally.seconds = time.monotonic() - start
    return tally
