"""What the tests on CUDA share: how many GPUs one needs, jobs for other processes, disturbances."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cdm_cli.jobs.runtime import world as distributed
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.runtime.session import Session, take_part
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training import train
from cdm_cli.options.sampling import Compute
from cdm_cli.options.training import TrainOptions
from cdm_cli.report import Report
from tests.faults.test_signals import running, until
from tests.forking import children_of
from tests.tiny import Told

GPUS = torch.cuda.device_count()
GiB = 2**30
HANG = timedelta(seconds=40)  # on a busy machine a process needs 20 to start

Run = Callable[[Any, Session], Any]


def needs(gpus: int) -> pytest.MarkDecorator:
    """Return the mark of tests for so many GPUs."""
    return pytest.mark.skipif(GPUS < gpus, reason=f"needs {gpus} CUDA devices, there are {GPUS}")


def address() -> str:
    """Return where the processes of one more job may meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def part(job: Run, options: Any, report: Report, world: World) -> Any:
    """Be one process of a job."""
    compute = getattr(options, "judge", options).compute
    return take_part(job, options, compute, report, world)


def together(job: Run, options: Any, gpus: int, report: Report) -> Any:
    """Run a job in so many processes."""
    return launch_processes(partial(part, job, options), Compute(gpus=gpus), report)


def in_turn(jobs: Sequence[tuple[Run, Any, str]], report: Report, world: World) -> None:
    """Be one process of several jobs, one after another; each has its own place to meet."""
    for run, options, place in jobs:
        part(run, options, report, replace(world, address=place))


def hasty(options: TrainOptions, report: Report, world: World) -> None:
    """Train, with little patience for the others."""
    distributed.HANG_TIMEOUT = HANG
    part(train.run_in, options, report, world)


@dataclass(frozen=True)
class Cramped:
    """A training run in too little memory on some ranks, and the same in parts as small."""

    halved: TrainOptions
    asked: TrainOptions
    ranks: tuple[int, ...]
    places: tuple[str, str] = ("", "")


def cramped(runs: Cramped, report: Report, world: World) -> None:
    """Train where memory is short; then train anew with the micro-batch that this came to."""
    if world.rank in runs.ranks:
        limited(2 * GiB, world.local_rank)
    part(train.run_in, runs.halved, report, replace(world, address=runs.places[0]))
    unlimited(world.local_rank)
    parts = f"training.micro_batch={micro_batch(Path('runs') / runs.halved.name)}"
    asked = replace(runs.asked, overrides=(*runs.asked.overrides, parts))
    part(train.run_in, asked, report, replace(world, address=runs.places[1]))


def micro_batch(directory: Path) -> int:
    """Return what the newest checkpoint says was taken at a time."""
    newest = sorted(directory.glob("checkpoints/*/state.json"))[-1]
    return int(json.loads(newest.read_text())["micro_batch"])


def limited(memory: int, device: int = 0) -> None:
    """Let this process have so many bytes of a device."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(memory / total, device)


def unlimited(device: int = 0) -> None:
    """End that."""
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    torch.cuda.empty_cache()


def once(done: int, act: Callable[[], object]) -> Told:
    """Return a report that acts when so much is done."""
    left = [act]

    def interfere(seen: int) -> None:
        if seen >= done and left:
            left.pop()()

    return Told(interfere)


def signal_rank(rank: int, number: int) -> None:
    """Send a signal to a process that `launch` started here."""
    there = sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)
    os.kill(there[rank].pid or 0, number)


def kill_parent(process: Any) -> None:
    """Kill a command with -9, and wait until all that it started has ended."""
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not any(map(running, children)), "the end of its processes")
