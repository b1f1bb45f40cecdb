"""The same command a second time, in the middle of the first: one wins, the other says who.

The second runs at a system call of the first, in the same process: locks belong to open files.
"""

import os
import shutil
import socket
import time
from pathlib import Path

from cdm_cli.data import disk
from tests.faults.children import Ended, here
from tests.faults.harness import Bench, Killer, Tally, broken, chosen

TAKEN, STOPPED = 73, 75
WHO = f"process {os.getpid()} on {socket.gethostname()}"


def at_every_call(name: str, home: Path, most: int) -> Tally:
    """Type a job again at about `most` of its calls; return what came of it."""
    start, bench = time.monotonic(), Bench(name, home)
    tally = Tally(f"{name}, twice", calls=len(bench.calls))
    for number in chosen(bench.calls, most):
        where = bench.case()
        faults = _twice(bench, where, number)
        tally.count("twice", faults, f"call {number}, {bench.calls[number].kind}")
        shutil.rmtree(where)
    tally.seconds = time.monotonic() - start
    return tally


def once(name: str, home: Path, killed: Killer) -> Tally:
    """Kill a job at the middle of its calls, and type it again there; return what came of it."""
    start, bench = time.monotonic(), Bench(name, home)
    tally, number = Tally(f"{name}, once", calls=len(bench.calls)), len(bench.calls) // 2
    where = f"call {number}, {bench.calls[number].kind} {bench.calls[number].path.name}"
    tally.count("kill", broken(bench, bench.case(), "kill", number, killed), where)
    tally.count("twice", _twice(bench, bench.case(), number), where)
    tally.seconds = time.monotonic() - start
    return tally


def _twice(bench: Bench, where: Path, number: int) -> list[str]:
    second: list[Ended] = []
    seen = iter(range(number + 1))

    def again(io: disk.Io) -> None:
        if next(seen, None) == number:
            second.append(here(bench.job.name, where, lambda io: None))

    first = here(bench.job.name, where, again)
    return [*_judged(first, second[0], bench.calls[number].path.name), *bench.again(where, [])]


def _judged(first: Ended, second: Ended, where: str) -> list[str]:
    """Return what is wrong with two ends, of which one may be that the other was faster."""
    codes, ends = (first.code, second.code), (first, second)
    faster = any("appeared meanwhile" in str(ended.told) for ended in ends)
    if not (0 in codes and set(codes) <= {0, TAKEN if faster else STOPPED}):
        return [f"they end with {codes}: {first.told}; {second.told}"]
    lost = [ended.told for ended in ends if ended.code == STOPPED]
    nameless = where.endswith(".lock")  # at the call that writes the name
    return [f"nobody is named: {told}" for told in lost if WHO not in told and not nameless]
