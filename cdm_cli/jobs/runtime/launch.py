"""`--gpus N`: the processes of one job on this machine, and what became of each.

The parent computes nothing. It starts one process per GPU, shows what the first one reports,
passes on signals, and ends with that one's result or error. Where a process dies or hangs, the
others are ended and the error names it; where the parent dies, they end too. torchrun would
end with code 1 whatever happened, and kill a saving process after 30 seconds.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
import torch.multiprocessing as mp

from cdm_cli.errors import CdmError, StoppedError
from cdm_cli.jobs.runtime.agreement import Facts
from cdm_cli.jobs.runtime.device import check_processes
from cdm_cli.jobs.runtime.ends import Ends, conclude, name_end
from cdm_cli.jobs.runtime.handover import Handover, hand_over, start_processes
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import Compute
from cdm_cli.report import Report
from cdm_cli.signals import leave_when_asked, release_signals
from cdm_cli.translation import as_cdm_error

Family = list[tuple[BaseProcess, Any]]  # each process, and the pipe from which to hear it
R = TypeVar("R")
Task = Callable[[Report, World], R]

GRACE = 20.0  # seconds for the others to end once one process has failed


class PipedReport:
    """The report of a process: what it says and counts travels to the parent."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def say(self, line: str) -> None:
        """Send one line."""
        self._pipe.send(("say", line))

    @contextlib.contextmanager
    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> Generator[Callable[[int, str], None]]:
        """Send the bar and every advance."""
        self._pipe.send(("track", (what, total, unit, done)))
        yield lambda count, note: self._pipe.send(("advance", (count, note)))
        self._pipe.send(("end", None))


def _run_child(rank: int, started: Handover[tuple[Task[Any], World]], pipe: Any) -> None:
    """Take part in a task as one of several processes, and send how it ended."""
    leave_when_asked(says=False)
    release_signals()
    _end_with_parent()
    task, world = started.take()
    try:
        result = task(PipedReport(pipe), replace(world, rank=rank, local_rank=rank))
    except Exception as raised:
        error = as_cdm_error(raised)
        if type(error) is CdmError:  # a bug, which its traceback tells of
            raise
        pipe.send(("error", (type(error), error.what, error.kept, error.next)))
    else:
        pipe.send(("result", result))


def _end_with_parent() -> None:
    """End as soon as the parent is gone, however that ended: else the job's lock would stay."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(StoppedError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def launch_processes(
    task: Task[R], compute: Compute, report: Report, facts: Facts | None = None
) -> R:
    """Run task(report, world) in `compute.gpus` processes; return the first one's result.

    facts: what they are started to do. The task and what it returns must be picklable. Raises the
    CdmError that a process raised, or StoppedError naming the process that died.
    """
    check_processes(compute)
    processes = compute.gpus or 1
    # numpy's BLAS reads this when it is loaded. Processes with a thread for every core each wait
    # for one another: FID of a small store took 35 times as long.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    world = World(0, processes, address=f"127.0.0.1:{_find_port()}", facts=facts or {})
    family: Family = []
    try:
        with hand_over((task, world)) as handed:
            for rank in range(processes):
                family.append(_start(rank, handed))
            with Stop(then=lambda _: _ask_to_end(family)) as stop:
                return _watch(family, report, stop)
    finally:
        for process, pipe in family:
            process.kill()
            process.join()
            pipe.close()


def _start(rank: int, handed: Handover[tuple[Task[Any], World]]) -> tuple[BaseProcess, Any]:
    """Start one process; return it, and the pipe from which to hear it."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_child, args=(rank, handed, theirs), daemon=True)
    with start_processes(handed):  # signals are heard once `_run_child` can tell what to do
        process.start()
    theirs.close()
    return process, ours


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(family: Family, report: Report, stop: Stop) -> Any:
    """Pass on messages until every process has ended, or some while after one has failed.

    stop: tells whether this process was asked to stop, and has asked them.
    """
    state, deadline, asked = Ends(report), float("inf"), set[int]()
    pipes: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(family)}
    try:
        while pipes and time.monotonic() < deadline:
            heard: list[Any] = wait(list(pipes), timeout=1.0)
            for pipe in heard:
                rank = pipes[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionResetError):
                    del pipes[pipe]
                    family[rank][0].join(GRACE)  # it may hang while it ends
                    content = family[rank][0].exitcode
                    kind = name_end(content, asked=rank in asked or bool(stop.asked))
                state.hear(rank, kind, content)
            if state.failed and deadline == float("inf"):
                deadline = time.monotonic() + GRACE
                asked = _ask_to_end(family)
    finally:
        state.close()
    return conclude(state.ends, len(family), stop)


def _ask_to_end(family: Family) -> set[int]:
    """Ask the processes that still run to stop and save; return their ranks."""
    running = {rank for rank, (process, _) in enumerate(family) if process.is_alive()}
    for rank in running:
        family[rank][0].terminate()
    return running
