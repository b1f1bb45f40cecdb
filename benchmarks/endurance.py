"""A million samples in one process: what grows, what writing costs, how fast it is read again.

    python benchmarks/endurance.py [--num 1000000] [--device cuda] [--train-steps 300]

An untrained network (16 channels at 8×8, two steps) keeps the time of a sample short, so that
the real `cdm sample` job writes as much as it ever will: resident memory, open files and device
memory are printed at every twentieth of the way. The store is then read in shuffled batches as
training reads it, and a network as small is trained on it: reading must be the faster one.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stage import build_net
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatches
from cdm_cli.data.part import Part
from cdm_cli.data.store import open_store
from cdm_cli.jobs.runtime.device import describe, pick_device
from cdm_cli.jobs.sampling import sample
from cdm_cli.jobs.sampling.blocks import BlockWriter
from cdm_cli.jobs.training import train
from cdm_cli.names import Device
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling
from cdm_cli.options.training import TrainOptions
from cdm_cli.overrides import with_overrides
from cdm_cli.plans import DataInfo, Plan, StageFile
from cdm_cli.presets import preset

MiB = 2**20
CLASSES = tuple(f"class {number}" for number in range(10))
SMALL = ("model.base_channels=16", "model.channel_mult=[1]", "model.attention_resolutions=[]")
OUT = Path("samples.h5")


class Use(NamedTuple):
    """What the process holds, in MiB but for files; and how far it is."""

    share: float
    seconds: float
    resident: float
    files: int
    allocated: float
    reserved: float


@dataclass
class Uses:
    """The report of a job, which looks at the process at every twentieth of the way."""

    every: float = 0.05
    rows: list[Use] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def say(self, line: str) -> None:
        """Pass a line on."""
        print(f"  {line}")

    @contextmanager
    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> Generator[Callable[[int, str], None]]:
        """Count, and look from time to time."""

        def advance(count: int, note: str) -> None:
            nonlocal done
            done += count
            if done / total >= self.every * (len(self.rows) + 1) - 1e-9:
                self.rows.append(use(done / total, time.perf_counter() - self.start))
                print(text(self.rows[-1]), flush=True)

        yield advance


@dataclass
class Clock:
    """Adds up the time that a function takes, in whatever thread."""

    seconds: float = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with its time taken."""

        def timed(*args: Any, **how: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **how)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def use(share: float, seconds: float) -> Use:
    """Look at this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    allocated = reserved = 0
    if torch.cuda.is_initialized():
        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    resident = pages * os.sysconf("SC_PAGE_SIZE") / MiB
    files = len(os.listdir("/proc/self/fd"))
    return Use(share, seconds, resident, files, allocated / MiB, reserved / MiB)


def text(row: Use) -> str:
    """Return one row of the table."""
    return (
        f"{row.share:6.1%}  {row.seconds:8.1f} s  RSS {row.resident:8.1f} MiB  files {row.files:3d}"
        f"  CUDA {row.allocated:8.1f} MiB allocated, {row.reserved:8.1f} MiB reserved"
    )


def machine(device: torch.device) -> str:
    """Return where and with what this was measured."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "h5py"))
    python = f"Python {platform.python_version()}"
    return f"cdm {__version__}, {describe(device)}, {libraries}, {python}, {platform.platform()}"


def write_stage(directory: Path) -> None:
    """Write a stage with the weights that a seed gives."""
    plan = with_overrides(preset("tiny-base8"), SMALL)
    assert isinstance(plan.stage, StageConfig)
    data = DataInfo(name="none", digest="0" * 64, classes=CLASSES, num_train=1, num_val=0)
    directory.mkdir(parents=True)
    write_stage_file(
        directory, StageFile(cdm_version=__version__, plan=Plan(**dict(plan)), data=data)
    )
    torch.manual_seed(0)
    save_ema(directory, build_net(plan.stage).state_dict(), step=1)


def drawn(num: int, steps: int, compute: Compute) -> float:
    """Draw the samples while looking at the process; return the seconds that it took."""
    uses, writing, waiting = Uses(), Clock(), Clock()
    write, wait = Part.write_block, BlockWriter.wait
    Part.write_block, BlockWriter.wait = writing.timed(write), waiting.timed(wait)
    options = SampleOptions(num=num, out=OUT, sampling=Sampling(steps=steps), compute=compute)
    try:
        sample.run(options, uses)
    finally:
        Part.write_block, BlockWriter.wait = write, wait
    seconds = time.perf_counter() - uses.start
    print(f"\n{num} samples in {seconds:.1f} s: {num / seconds:.0f} samples/s")
    print(f"writing (in a thread of its own): {writing.seconds / seconds:.2%} of that time")
    print(f"sampling waited for writing: {waiting.seconds / seconds:.2%}")
    compared(uses.rows)
    return seconds


def compared(rows: list[Use]) -> None:
    """Print the first tenth beside the end."""
    first = [row for row in rows if row.share <= 0.1 + 1e-6] or rows[:1]
    print("\n                     first tenth       last    difference")
    for name in ("resident", "files", "allocated", "reserved"):
        before = sum(getattr(row, name) for row in first) / len(first)
        after = getattr(rows[-1], name)
        print(f"{name:18s} {before:13.1f} {after:10.1f} {after - before:+13.1f}")


def read(batch_size: int, seconds: float, device: torch.device) -> float:
    """Read shuffled batches for a while, as training does; return images per second."""
    with open_store(OUT) as store:
        reader = TrainBatches(store.parts[""], 8, None, batch_size, 0)
        batches: Any = reader.iterate(1, device)
        for _ in range(10):
            next(batches)  # the order of the epoch is made, pages are read
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(batches)
            count += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rate = count / (time.perf_counter() - start)
        batches.close()
    print(f"\nread and shuffled: {rate:.0f} batches of {batch_size}/s, {rate * batch_size:.0f}/s")
    return rate * batch_size


def trained(batch_size: int, steps: int, compute: Compute) -> float:
    """Train a small network on the store; return images per second over the last steps."""
    often = f"training.log_every={max(1, steps // 3)}", "training.grid_every=0"
    never = f"training.save_every={steps}"
    options = TrainOptions(
        name="trained", preset="tiny-base8", data=OUT, overrides=(*SMALL, *often, never),
        steps=steps, batch_size=batch_size, compute=compute,
    )  # fmt: skip
    result = train.run(options, Uses(every=2.0))
    rate = result.images_per_second or float("nan")
    print(f"trained: {rate / batch_size:.1f} steps of {batch_size}/s, {rate:.0f} images/s")
    return rate


def main() -> None:
    """Measure, in a directory that is removed afterwards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=2, help="of the sampler")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=None, help="of sampling")
    parser.add_argument("--train-batch", type=int, default=256)
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--read-seconds", type=float, default=10.0)
    parser.add_argument("--directory", type=Path, default=None, help="where the store is written")
    asked = parser.parse_args()
    place: Device = asked.device
    device = pick_device(place)
    print(machine(device))
    with tempfile.TemporaryDirectory(dir=asked.directory) as home:
        os.chdir(home)
        write_stage(Path("runs/base"))
        drawn(asked.num, asked.steps, Compute(device=place, batch_size=asked.batch_size))
        print(f"store: {OUT.stat().st_size / MiB:.0f} MiB")
        reading = read(asked.train_batch, asked.read_seconds, device)
        training = trained(asked.train_batch, asked.train_steps, Compute(device=place))
        print(f"reading is {reading / training:.1f} times as fast as the training of one process")
        os.chdir("/")


if __name__ == "__main__":
    main()
