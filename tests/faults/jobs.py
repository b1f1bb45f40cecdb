"""The small jobs whose every system call is broken, and what must be equal in the end.

A job works in the current directory, on inputs that are laid out once and copied for each
case. It returns how much work it found to do: images times network evaluations, or steps.
torch is imported by the jobs that need it: a process without it forks ten times as fast.
"""

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cdm_cli.data import durable
from cdm_cli.data.guard import open_vetted
from cdm_cli.data.schema import WRITER_SIZE
from cdm_cli.errors import CdmError
from cdm_cli.jobs.identity import resume_or_create
from cdm_cli.options import (
    Compute,
    FeatureOptions,
    PrepareOptions,
    SampleOptions,
    SweepOptions,
    TrainOptions,
    TuneOptions,
    UpsampleOptions,
)
from cdm_cli.options_eval import EvalOptions
from tests.data.stores import fill, samples_spec
from tests.drawings import class_images, write_zip

CPU = Compute(device="cpu", batch_size=2)
STORES = (".h5", ".preparing", ".without")
BOARD = "tensorboard"  # its events tell the time, in their names, too
CLOCKS = {"images_per_second"}  # of metrics.jsonl
SMALL = {"channel_mult": (1,)}
TRAINING = (
    "model.base_channels=8", "model.channel_mult=[1]", "model.num_heads=1",
    "model.attention_resolutions=[]", "schedule.T=20", "sampling.steps=4", "training.keep=1",
    "training.save_every=2", "training.log_every=1", "training.grid_every=0",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One system call as it was announced, without its data."""

    kind: str
    path: Path
    target: Path | None
    flag: bool  # one byte 1 written: a block is done

    @classmethod
    def of(cls, seen: durable.Io) -> "Call":
        """Remember a call."""
        flag = seen.kind == "write" and bytes(seen.data) == b"\1"
        return cls(seen.kind, seen.path, seen.target, flag)


@dataclass(frozen=True)
class Job:
    """unit: the work of one block, None where work is counted in steps of training.

    0: no blocks are made. That no trial of a search is repeated is in tests/jobs/.
    """

    name: str
    lay_out: Callable[[Path], object]
    run: Callable[[], int]
    needs: tuple[str, ...] = ()
    unit: int | None = None

    def safe(self, calls: Sequence[Call]) -> int:
        """Return how much work a run that made these calls must never do again."""
        return newest_step(calls) if self.unit is None else self.unit * done_blocks(calls)


def done_blocks(calls: Sequence[Call]) -> int:
    """Count the blocks whose done flag was synced."""
    pairs = pairwise(calls)
    return sum(a.flag and b.kind == "sync" and a.path == b.path for a, b in pairs)


def newest_step(calls: Sequence[Call]) -> int:
    """Return the step of the newest checkpoint that has its name, durably."""
    pairs = pairwise(calls)
    named = [a.target.name for a, b in pairs if b.kind == "sync_directory" and a.target]
    return max((int(name[5:]) for name in named if name.startswith("step-")), default=0)


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


@contextlib.contextmanager
def settled() -> Generator[None]:
    """Make blocks of two samples, so that small jobs have several."""
    from cdm_cli.jobs import blocks

    before, blocks.SMALLEST = blocks.SMALLEST, 2
    try:
        yield
    finally:
        blocks.SMALLEST = before


class Counted:
    """A report that only adds up how much there is to do."""

    def __init__(self) -> None:
        self.total = 0

    def say(self, line: str) -> None:
        """Hear nothing."""

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str) -> Generator[Callable[[int, str], None]]:
        """Count what is announced."""
        self.total += total
        yield lambda count, note: None


def _work(run: Callable[..., Any], options: Any) -> int:
    counted = Counted()
    run(options, counted)
    return counted.total


def _create() -> int:
    with resume_or_create("store.h5", samples_spec(num=12, block_size=4)) as store:
        pending = store.parts[""].pending()
        fill(store)
    return len(pending)


def _sample() -> int:
    from cdm_cli.jobs import sample

    return _work(sample.run, SampleOptions(num=6, keep_s=(5,), compute=CPU))


def _upsample() -> int:
    from cdm_cli.jobs import upsample

    return _work(upsample.run, UpsampleOptions(s=5, compute=CPU))


def _train() -> int:
    from cdm_cli.jobs import train

    options = TrainOptions(
        name="base", preset="tiny-base8", steps=5, batch_size=4, overrides=TRAINING,
        compute=Compute(device="cpu"),
    )  # fmt: skip
    return _work(train.run, options)


def _prepare() -> int:
    from cdm_cli.jobs import prepare

    (source,) = Path().glob("images.*")
    return _work(prepare.run, PrepareOptions(src=source, resolutions=(4, 8), workers=1))


def _sweep() -> int:
    from cdm_cli.jobs import blocks, sweep_s

    blocks.SMALLEST = 8  # three blocks a point
    compute = Compute(device="cpu", batch_size=8)
    judge = FeatureOptions(features="judge", compute=compute)
    return _work(sweep_s.run, SweepOptions(s=(0, 5), judge=judge))


def _tune() -> int:
    from cdm_cli.jobs import tune_schedule

    judge = FeatureOptions(features="judge", compute=Compute(device="cpu", batch_size=8))
    options = {"steps": (2,), "num": 24, "trials": 2, "judge": judge}
    return _work(tune_schedule.run, TuneOptions.model_validate(options))


def _eval() -> int:
    from cdm_cli.jobs import evaluate

    judge = FeatureOptions(features="judge", compute=Compute(device="cpu", batch_size=8))
    options = EvalOptions(
        metrics=("fid", "is"), store=Path("lowres.h5"), judge=judge, out=Path("table.json")
    )
    return _work(evaluate.run, options)


def _stage(home: Path) -> None:
    from tests.tiny import base_config, write_stage

    write_stage(home / "runs/base", base_config(steps=2, **SMALL))


def _stage_and_store(home: Path, num: int = 6, *, continuous: bool = False) -> None:
    from tests.tiny import arrays_of, continuous_config, model, sr_config, write_stage, write_store

    write_store(home / "lowres.h5", "samples", {"": arrays_of(num, [8], z=(5,))}, block_size=8)
    config = continuous_config(steps=2) if continuous else sr_config(steps=2)
    write_stage(home / "runs/sr", config.model_copy(update={"model": model(16, **SMALL)}))


def _judge_and_store(home: Path, *, continuous: bool = False) -> None:
    from tests.jobs.sweeping import write_judge
    from tests.tiny import arrays_of, write_store

    _stage_and_store(home, num=24, continuous=continuous)
    write_judge(home / "runs/judge")
    real = {"train": arrays_of(24, [8, 16]), "val": arrays_of(20, [8, 16], seed=1)}
    write_store(home / "data.h5", "prepared", real)


def _judge_and_continuous(home: Path) -> None:
    _judge_and_store(home, continuous=True)


def _data(home: Path) -> None:
    from tests.tiny import arrays_of, write_store

    write_store(home / "data.h5", "prepared", {"train": arrays_of(12, [8])})


def _images(home: Path) -> None:
    write_zip(home / "images.zip", class_images(per_class=2, height=8, width=8))


def _packed_images(home: Path) -> None:
    with tarfile.open(home / "images.tar.gz", "w:gz") as archive:
        for name, data in class_images(per_class=2, height=8, width=8).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _bad_images(home: Path) -> None:
    """Two of six are cut short, so that they are left out of the store."""
    files = class_images(per_class=2, height=8, width=8)
    cut = {name: files[name][:60] for name in sorted(files)[1:5:3]}
    write_zip(home / "images.zip", files | cut)


JOBS = {
    job.name: job
    for job in (
        Job("create", lambda home: None, _create, unit=1),
        Job("prepare", _images, _prepare, ("cdm_cli.jobs.prepare",), unit=2),
        Job("prepare, packed", _packed_images, _prepare, ("cdm_cli.jobs.prepare",), unit=2),
        Job("prepare, some bad", _bad_images, _prepare, ("cdm_cli.jobs.prepare",), unit=2),
        Job("sample", _stage, _sample, ("cdm_cli.jobs.sample",), unit=2 * 3),
        Job("upsample", _stage_and_store, _upsample, ("cdm_cli.jobs.upsample",), unit=2 * 2),
        Job("train", _data, _train, ("cdm_cli.jobs.train",)),
        Job("sweep", _judge_and_store, _sweep, ("cdm_cli.jobs.sweep_s",), unit=8 * 2),
        Job("tune", _judge_and_continuous, _tune, ("cdm_cli.jobs.tune_schedule",), unit=0),
        Job("eval", _judge_and_store, _eval, ("cdm_cli.jobs.evaluate",), unit=0),
    )
}
