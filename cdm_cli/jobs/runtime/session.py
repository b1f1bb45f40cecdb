"""A job in one process or several: who starts them, who acts for all, how they wait."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from cdm_cli.data.memory import keep_freed_memory
from cdm_cli.data.schema import StoreSpec
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime import world as distributed
from cdm_cli.jobs.runtime.agreement import (
    SAME,
    Facts,
    agree_on,
    check_shared,
    describe_task,
)
from cdm_cli.jobs.runtime.busy import advise
from cdm_cli.jobs.runtime.device import (
    check_processes,
    choose_kind,
    make_deterministic,
    pick_device,
)
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.runtime.ranks import is_started_elsewhere
from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import Compute
from cdm_cli.report import Report
from cdm_cli.signals import hear_within_calls
from cdm_cli.units import format_count

O = TypeVar("O")  # noqa: E741
R = TypeVar("R")
T = TypeVar("T")
Job = Callable[[O, "Session"], R]

PATIENCE = (
    600.0  # seconds without a new block, besides three times the longest seen, that end a wait
)
GLANCE = 0.5


class Silent:
    """Drops everything: only the first process reports."""

    def say(self, line: str) -> None:
        """Say nothing."""

    @contextmanager
    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> Generator[Callable[[int, str], None]]:
        """Count nothing."""
        yield lambda count, note: None


@dataclass(frozen=True)
class Session:
    """One process of a running job: where and how it computes, among which others, for whom.

    compute.batch_size is None where the device decides. What is decided and done for all goes
    through `decide` and `lead`, so that no process goes on where another one cannot.
    """

    device: torch.device
    compute: Compute = field(default_factory=Compute)
    world: World = field(default_factory=World)
    report: Report = field(default_factory=Silent)

    def decide(
        self,
        decision: Callable[[], T],
        facts: Callable[[T], Facts] = lambda decided: {},
        *,
        next: str = SAME,
    ) -> T:
        """Decide in every process, and return the decision where all came to the same facts.

        Raises in every process what `agree_on` raises.
        """
        return agree_on(self.world, decision, facts, next=next)

    def lead(self, action: Callable[[], T]) -> T | None:
        """Act in the first process only, and return what came of it, None in the others.

        Where the action fails, every process raises its error.
        """
        return self.decide(lambda: action() if self.world.leads else None)

    def check_shared(self, out: Path) -> None:
        """Raise MismatchError in every process unless all of them see the directory of `out`."""
        check_shared(self.world, out)


def plan_session(compute: Compute, report: Report) -> Session:
    """Return the session of a dry run: one process, on the device of the job.

    Raises UsageError where that device is not there, or fewer of them than --gpus.
    """
    device = pick_device(compute.device)
    check_processes(compute)
    return Session(device, compute, report=report)


def start_job(job: Job[O, R], options: O, compute: Compute, report: Report) -> R:
    """Run job(options, session), and return what it returns.

    It runs in this process, which may be one of those that torchrun or srun started; or, with
    `--gpus N`, in N processes that are started here, whose first one's result it is. Raises what
    the job raises, and MismatchError where processes were started to do different things.
    """
    world = replace(distributed.read_world(), facts=describe_task(job, options))
    task = partial(take_part, job, options, compute)
    elsewhere = is_started_elsewhere()
    if not elsewhere and choose_kind(compute.device) == "cpu":
        tell_busy(report, compute.gpus or 1)
    if not elsewhere and (compute.gpus or 1) > 1:
        return launch_processes(task, compute, report, world.facts)
    if elsewhere and world.leads and compute.gpus:
        report.say(
            f"--gpus {compute.gpus} is left aside: torchrun or srun started this job, of "
            f"{world.size} in all"
        )
    return task(report, world)


def tell_busy(report: Report, processes: int) -> None:
    """Say what to type where other programs keep the cores busy that a network would run on."""
    if said := advise(processes):
        report.say(said)


def take_part(job: Job[O, R], options: O, compute: Compute, report: Report, alone: World) -> R:
    """Run a job as one process of a world: join the others, if there are any, and leave them.

    All of them end here unless they were started to do the same, on the same kind of device.
    """
    with ExitStack() as stack:
        if alone.size > 1:
            stack.enter_context(hear_within_calls())  # to join the others takes as long as theirs
        world = distributed.connect(alone, choose_kind(compute.device), report.say)
        stack.callback(distributed.leave_world, world)
        device = agree_on(
            world,
            lambda: pick_device(compute.device, alone.local_rank),
            lambda device: {**alone.facts, "device": device.type},
        )
        make_deterministic(device)
        if device.type == "cpu":
            keep_freed_memory()
        told = report if world.leads else Silent()
        return job(options, Session(device, compute, world, told))


@contextmanager
def open_shared_store(out: Path, spec: StoreSpec, session: Session) -> Generator[Store]:
    """Open the store for every process: the first creates and locks it, the others follow.

    A store that is there is continued if it is of this same job, that is if its contents and the
    identity in its provenance are those of `spec`. Raises WouldOverwriteError if not, and
    StoppedError while another job writes it: the lock is flock(2), which ends with its owner,
    however that ends.
    """
    store = session.lead(lambda: resume_or_create(out, spec))
    if store is None:
        store = open_store(out, writable=True, shared=True)
    with store:
        session.world.barrier()
        yield store


def wait_for_others(
    part: Part, blocks: range, world: World, longest: float, find_stop: Callable[[], str]
) -> None:
    """Wait until the other processes have written their blocks, for as long as they progress.

    blocks: those of all processes. longest: seconds that some took here. Raises StoppedError when
    asked to stop, where another process has ended, or where no block appears for long.
    """
    left, since = len(part.list_missing(blocks)), time.monotonic()
    while world.size > 1 and left:
        time.sleep(GLANCE)
        ended = world.find_ended()
        now = len(part.list_missing(blocks))
        if now < left:
            left, since = now, time.monotonic()
        gone = f"rank {', '.join(map(str, ended))} has ended" if ended and left else ""
        if find_stop() or gone or time.monotonic() - since > PATIENCE + 3 * longest:
            silent = f"another process has made no block for {PATIENCE:.0f} s and more"
            why = find_stop() or gone or silent
            raise StoppedError(
                f"stopped waiting: {why}",
                kept=f"{len(blocks) - left} of {format_count(len(blocks), 'block', 'are')} "
                "complete",
                next="the same command continues",
            )
