"""The small jobs whose every system call is broken, and what must be equal in the end.

A job works in the current directory, on inputs that are laid out once and copied for each
case. It returns how much work it found to do: images times network evaluations, or steps.
torch is imported by the jobs that need it: a process without it forks ten times as fast.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cdm_cli.data import disk
from cdm_cli.data.guard import open_vetted
from cdm_cli.data.schema import WRITER_SIZE
from cdm_cli.errors import CdmError
from tests.faults import inputs, runs

STORES = (".h5", ".preparing", ".without")
BOARD = "tensorboard"  # its events tell the time, in their names, too
TRAINING = ("training.train", "pictures.figure")
CLOCKS = {"images_per_second"}  # of metrics.jsonl


@dataclass(frozen=True)
class Call:
    """One system call as it was announced, without its data."""

    kind: str
    path: Path
    target: Path | None
    flag: bool  # one byte 1 written: a block is done

    @classmethod
    def of(cls, seen: disk.Io) -> "Call":
        """Remember a call."""
        flag = seen.kind == "write" and bytes(seen.data) == b"\1"
        return cls(seen.kind, seen.path, seen.target, flag)


@dataclass(frozen=True)
class Job:
    """command: of the table of commands, "" for a part of several. needs: modules of jobs.

    unit: the work of one block, None where work is counted in steps of training; 0: no blocks
    are made. That no trial of a search is repeated is in tests/jobs/.
    """

    name: str
    command: str
    lay_out: Callable[[Path], object]
    run: Callable[[], int]
    needs: tuple[str, ...] = ()
    unit: int | None = None

    def safe(self, calls: Sequence[Call]) -> int:
        """Return how much work a run that made these calls must never do again."""
        if self.unit is None:
            return sum(newest_steps(calls).values())
        return self.unit * done_blocks(calls)


def done_blocks(calls: Sequence[Call]) -> int:
    """Count the blocks whose done flag was synced."""
    pairs = pairwise(calls)
    return sum(a.flag and b.kind == "sync" and a.path == b.path for a, b in pairs)


def newest_steps(calls: Sequence[Call]) -> dict[Path, int]:
    """Return the step of the newest checkpoint of each directory that has its name, durably."""
    pairs, newest = pairwise(calls), dict[Path, int]()
    for target in [a.target for a, b in pairs if b.kind == "sync_directory" and a.target]:
        if target.name.startswith("step-") and not target.suffix:
            newest[target.parent] = max(newest.get(target.parent, 0), int(target.name[5:]))
    return newest


def state(home: Path) -> dict[str, bytes]:
    """Return the contents of every file, but for who wrote it and when, and what is a cache."""
    files = (path for path in sorted(home.rglob("*")) if path.is_file())
    lasting = (
        path
        for path in files
        if path.name != ".lock" and path.parent.suffix != ".stats" and path.parent.name != BOARD
    )
    return {str(path.relative_to(home)): _lasting(path) for path in lasting}


def _lasting(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    with contextlib.suppress(CdmError, ValueError):  # what is damaged is compared as it is
        if path.suffix in STORES:
            opened = open_vetted(path)
            os.close(opened.fd)
            place = opened.layout.offsets["writer"]
            data[place : place + WRITER_SIZE] = bytes(WRITER_SIZE)
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in bytes(data).splitlines()]
            kept = [{key: row[key] for key in row.keys() - CLOCKS} for row in rows]
            return json.dumps(kept, sort_keys=True).encode()
    return bytes(data)


JOBS = {
    job.name: job
    for job in (
        Job("create", "", lambda home: None, runs.create, unit=1),
        Job("prepare", "prepare", inputs.images, runs.prepare, ("prepare.prepare",), unit=2),
        Job(
            "prepare, packed",
            "prepare",
            inputs.packed_images,
            runs.prepare,
            ("prepare.prepare",),
            unit=2,
        ),
        Job(
            "prepare, some bad",
            "prepare",
            inputs.bad_images,
            runs.prepare,
            ("prepare.prepare",),
            unit=2,
        ),
        Job("sample", "sample", inputs.stage, runs.sample, ("sampling.sample",), unit=2 * 3),
        Job(
            "upsample",
            "upsample",
            inputs.stage_and_store,
            runs.upsample,
            ("sampling.upsample",),
            2 * 2,
        ),
        Job("train", "train", inputs.data, runs.train, TRAINING),
        Job("train, select", "train", inputs.judge_and_data, runs.select, TRAINING),
        Job("sweep", "sweep-s", inputs.judge_and_store, runs.sweep, ("sweep.sweep",), unit=8 * 2),
        Job("race", "sweep-s", inputs.judge_and_store, runs.race, ("sweep.race",), unit=9 * 2),
        Job(
            "race, paused",
            "sweep-s",
            inputs.judge_and_store,
            runs.race_with_pause,
            ("sweep.race",),
            unit=9 * 2,
        ),
        Job("race, then grid", "sweep-s", inputs.raced, runs.grid_of_race, ("sweep.sweep",), 6 * 2),
        Job("grid, then race", "sweep-s", inputs.gridded, runs.race, ("sweep.race",), unit=0),
        Job(
            "sweep, axes",
            "sweep",
            inputs.judge_and_store,
            runs.sweep_axes,
            ("sweep.sweep",),
            unit=0,
        ),
        Job("tune", "tune-schedule", inputs.judge_and_continuous, runs.tune, ("tune.tune",), 0),
        Job("eval", "eval", inputs.judge_and_store, runs.eval, ("judging.evaluate",), unit=0),
        Job("cas", "eval cas", inputs.coloured, runs.cas, ("cas.cas",)),
        Job("curve", "eval checkpoints", inputs.trained, runs.curve, ("curve.curve",), unit=0),
        Job("merge", "merge", inputs.parts, runs.merge, ("exchange.merge",), unit=1),
        Job("grid", "grid", inputs.store, runs.grid, ("pictures.grid",), unit=0),
        Job("report", "report", inputs.store, runs.report, ("reporting.report",), unit=0),
        Job("defaults", "defaults", inputs.applied, runs.defaults, ("sampling.defaults",), unit=0),
        Job("export", "export", inputs.store, runs.export, ("exchange.export",), unit=0),
        Job("export, npz", "export", inputs.store, runs.export_npz, ("exchange.export",), unit=0),
        Job(
            "import",
            "import",
            inputs.checkpoint,
            runs.import_checkpoint,
            ("exchange.import_any",),
            unit=0,
        ),
        Job(
            "import, images",
            "import",
            inputs.images,
            runs.import_images,
            ("exchange.import_any",),
            unit=2,
        ),
        Job("prune", "prune", inputs.swept, runs.prune, ("workspace.prune",), unit=0),
        Job("demo", "demo", inputs.demonstrated, runs.demo, ("demo.demo",), unit=0),
    )
}
WRITES_NOTHING = {
    "eval elbo": "prints bounds",
    "inspect": "prints what headers say",
    "ls": "prints what headers say",
    "env": "prints what the machine is",
    "help": "prints what flags there are",
    "verify": "prints what it found",
    "completions": "prints a script",
}
