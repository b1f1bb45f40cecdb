"""A job in one process or several: who starts them, who acts for all, how they wait."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from cdm_cli.data.memory import keep_freed_memory
from cdm_cli.data.schema import StoreSpec
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime import world as distributed
from cdm_cli.jobs.runtime.agreement import agreed, asked_of, check_shared, led
from cdm_cli.jobs.runtime.device import kind_of_device, make_deterministic, pick_device
from cdm_cli.jobs.runtime.identity import resume_or_create
from cdm_cli.jobs.runtime.launch import launch
from cdm_cli.jobs.runtime.ranks import started_elsewhere
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import Compute
from cdm_cli.report import Report

__all__ = ["agreed", "check_shared", "joined", "led", "shared_store", "started", "wait_for_others"]

O = TypeVar("O")  # noqa: E741
R = TypeVar("R")

PATIENCE = (
    600.0  # seconds without a new block, besides three times the longest seen, that end a wait
)
GLANCE = 0.5


class Silent:
    """The report of a process that another one speaks for."""

    def say(self, line: str) -> None:
        """Say nothing."""

    @contextmanager
    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> Generator[Callable[[int, str], None]]:
        """Count nothing."""
        yield lambda count, note: None


def started(
    job: Callable[[O, Report, World], R], options: O, compute: Compute, report: Report
) -> R:
    """Run job(options, report, world), in `--gpus N` processes of our own where that is asked."""
    world = replace(distributed.from_environment(), asked=asked_of(job, options))
    elsewhere = started_elsewhere()
    if not elsewhere and (compute.gpus or 1) > 1:
        return launch(job, options, compute.gpus or 1, report)
    if elsewhere and world.leads and compute.gpus:
        report.say(
            f"--gpus {compute.gpus} is left aside: torchrun or srun started this job, of "
            f"{world.size} in all"
        )
    return job(options, report if world.leads else Silent(), world)


@contextmanager
def joined(compute: Compute, world: World | None = None) -> Generator[tuple[World, torch.device]]:
    """Join the other processes of this job, if there are any, for as long as entered.

    All of them end here unless they were started to do the same, on the same kind of device.
    """
    alone = distributed.from_environment() if world is None else world
    world = distributed.connect(alone, kind_of_device(compute.device))
    try:
        device = agreed(
            world,
            lambda: pick_device(compute.device, alone.local_rank),
            lambda device: {**alone.asked, "device": device.type},
        )
        make_deterministic(device)
        if device.type == "cpu":
            keep_freed_memory()
        yield world, device
    finally:
        distributed.leave(world)


@contextmanager
def shared_store(out: Path, spec: StoreSpec, world: World) -> Generator[Store]:
    """Open the store for every process: the first creates and locks it, the others follow."""
    store = led(world, lambda: resume_or_create(out, spec))
    if store is None:
        store = open_store(out, writable=True, shared=True)
    with store:
        world.barrier()
        yield store


def wait_for_others(part: Part, world: World, longest: float, asked: Callable[[], str]) -> None:
    """Wait until the other processes have written their blocks, for as long as they progress.

    longest: seconds that a block took here. Raises StoppedError when asked to stop, or where
    no block appears for long.
    """
    left, since = len(part.pending()), time.monotonic()
    while world.size > 1 and left:
        time.sleep(GLANCE)
        now = len(part.pending())
        if now < left:
            left, since = now, time.monotonic()
        if asked() or time.monotonic() - since > PATIENCE + 3 * longest:
            why = asked() or f"another process has made no block for {PATIENCE:.0f} s and more"
            raise StoppedError(
                f"stopped waiting: {why}",
                kept=f"{part.num_blocks - left} of {part.num_blocks} blocks are complete",
                next="the same command continues",
            )
