"""Breaks each system call of a job in turn, then runs the job again.

A call is announced by `durable` before it is made. There the process dies (at a write, also
with half of the bytes written), or the call fails. The same job must then continue, do none of
the safe work again, and end in the bytes of a run that was never disturbed.
"""

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdm_cli.data import disk, durable
from tests.faults.children import KILLED, Ended, failing, here
from tests.faults.jobs import JOBS, Call, state

DISK = 74
FAILURES = {"full": errno.ENOSPC, "broken": errno.EIO}
MODES = ("torn", "kill", *FAILURES)
Killer = Callable[..., Ended]


@dataclass
class Tally:
    """What was tried on one job, and every case that broke a promise."""

    job: str
    calls: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, mode: str, faults: list[str], where: str) -> None:
        """Add one case."""
        self.tried[mode] = self.tried.get(mode, 0) + 1
        self.failed += [f"{self.job}: {mode} at {where}: {fault}" for fault in faults]

    def __str__(self) -> str:
        cases = ", ".join(f"{count} {mode}" for mode, count in self.tried.items())
        return (
            f"{self.job}: {self.calls} calls; {cases}; {len(self.failed)} failed; "
            f"{self.seconds:.1f} s"
        )


class Bench:
    """One job, its inputs, and how it ends undisturbed."""

    def __init__(self, name: str, home: Path) -> None:
        self.job, self.home = JOBS[name], home
        self.log: list[disk.Io] = []
        self.inputs = home / "inputs"
        self.inputs.mkdir(parents=True)
        self.job.lay_out(self.inputs)
        self._cases = 0
        whole = self.case()
        ended = here(name, whole, self._record)
        assert ended.code == 0, ended.told
        self.work, self.state = ended.told, state(whole)
        self.calls = [Call.of(io) for io in self.log]

    def _record(self, io: disk.Io) -> None:
        self.log.append(io._replace(fd=-1, data=bytes(io.data)))

    def case(self) -> Path:
        """Return a fresh directory with the inputs."""
        self._cases += 1
        where = self.home / str(self._cases)
        shutil.copytree(self.inputs, where, symlinks=True)
        return where

    def again(self, where: Path, calls: Sequence[Call]) -> list[str]:
        """Run the job once more after these calls; return what is wrong with that."""
        ended = here(self.job.name, where, lambda io: None)
        if ended.code:
            return [f"the next run ends with {ended.code}: {ended.told}"]
        most, faults = self.work - self.job.safe(calls), []
        if ended.told > most:
            faults.append(f"the next run did {ended.told} units of work, {most} were missing")
        found = state(where)
        names = sorted(found.keys() | self.state.keys())
        faults += [f"{name} differs" for name in names if found.get(name) != self.state.get(name)]
        return faults


def every_fault(
    name: str, home: Path, killed: Killer, most: int = 10**6, *, in_turn: bool = False
) -> Tally:
    """Break the calls of a job, about `most` of them; return what came of it.

    Each in every mode; in_turn: each in one mode, the modes taking turns.
    """
    start, bench = time.monotonic(), Bench(name, home)
    tally = Tally(name, calls=len(bench.calls))
    for mode, number in cases(bench.calls, most, in_turn=in_turn):
        call, where = bench.calls[number], bench.case()
        faults = broken(bench, where, mode, number, killed)
        tally.count(mode, faults, f"call {number}, {call.kind} {call.path.name}")
        shutil.rmtree(where)
    tally.seconds = time.monotonic() - start
    return tally


def cases(calls: Sequence[Call], most: int, *, in_turn: bool) -> Iterator[tuple[str, int]]:
    """Yield what to break and how."""
    seen: Counter[str] = Counter()
    for number in chosen(calls, most):
        kind = calls[number].kind
        fitting = [mode for mode in MODES if mode != "torn" or kind == "write"]
        for mode in [fitting[seen[kind] % len(fitting)]] if in_turn else fitting:
            yield mode, number
        seen[kind] += 1


def chosen(calls: Sequence[Call], most: int) -> list[int]:
    """Return about `most` places, evenly spread, and the first and last of each kind."""
    found: dict[str, list[int]] = {}
    for number, call in enumerate(calls):
        found.setdefault(call.kind, []).append(number)
    ends = {places[at] for places in found.values() for at in (0, -1)}
    return sorted(ends | set(range(0, len(calls), max(1, -(-len(calls) // most)))))


def broken(bench: Bench, where: Path, mode: str, number: int, killed: Killer) -> list[str]:
    """Break one call, run the job again, and return every promise that did not hold."""
    name, faults = bench.job.name, []
    if mode in FAILURES:
        ended = here(name, where, failing(number, FAILURES[mode]))
        litter = [path.name for path in where.rglob(f"*{durable.PARTIAL}")]
        faults += [f"it leaves {litter}"] * bool(litter)
        wanted = (DISK, 0)  # a failure to tidy up need not end a job
    else:
        ended, wanted = killed(name, where, number, torn=mode == "torn"), (KILLED,)
    if ended.code not in wanted:
        faults.append(f"it ends with {ended.code}, not {wanted[0]}: {ended.told}")
    return faults + bench.again(where, bench.calls[:number])
