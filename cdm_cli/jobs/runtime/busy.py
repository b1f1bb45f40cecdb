"""Whether other programs keep cores busy, on which the threads of a network would then wait.

The threads of a network share each layer and wait, spinning, for the last of them; one that has no
core of its own holds up all others. Counted is how long the cores of this process worked, and not
for it, between two looks: at the start of the command, and once its imports are done. What ran
before it does not count, as it would in a load average.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")  # of Linux, in ticks: cpu0 user nice system idle iowait irq softirq …
WORKED = (0, 1, 2, 5, 6)  # places of ticks in which a core worked
SECONDS = 0.3  # the least between two looks: ticks of 10 ms are counted
TAKEN = 0.6  # of a core: less is what any machine does beside
THREADS = "OMP_NUM_THREADS"
TOLD = "CDM_BUSY_TOLD"  # set for the commands of one that has said it


class CoreTimes(NamedTuple):
    """Seconds at some moment: of a clock, of work of our cores, and of that for this process."""

    clock: float
    worked: float
    ours: float


_first: list[CoreTimes] = []


def begin() -> None:
    """Take the first look, unless the user has said how many threads there are."""
    _first[:] = [] if _is_told() else _look(os.sched_getaffinity(0))


def advise(processes: int = 1) -> str:
    """Return what to type where other programs keep cores busy, "" where none do; once a command.

    processes: among how many of this job the threads are shared.
    """
    cores = os.sched_getaffinity(0)
    if not _first or len(cores) == 1 or _is_told():
        return ""
    others = round(_count_taken(_first.pop(), cores) + 0.5 - TAKEN)
    if not others:
        return ""
    free = max(1, (len(cores) - others) // processes)
    return (
        f"other programs keep {min(others, len(cores))} of these {len(cores)} cores busy, and "
        f"networks run several times slower than without them: {THREADS}={free} before the command "
        "leaves them theirs"
    )


def _is_told() -> bool:
    return THREADS in os.environ or TOLD in os.environ


def _count_taken(first: CoreTimes, cores: Collection[int]) -> float:
    """Return how many of the cores worked for others since a first look, on average."""
    time.sleep(max(0.0, first.clock + SECONDS - time.monotonic()))
    for now in _look(cores):
        taken = now.worked - first.worked - (now.ours - first.ours)
        return max(0.0, taken / (now.clock - first.clock))
    return 0.0


def _look(cores: Collection[int]) -> list[CoreTimes]:
    """Return one look at these cores; none where the system does not tell."""
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
        ours = [line[1:] for line in lines if line[0] in {f"cpu{core}" for core in cores}]
        ticks = sum(int(line[place]) for line in ours for place in WORKED)
    except (OSError, ValueError, IndexError):
        return []
    worked = ticks / os.sysconf("SC_CLK_TCK")
    return [CoreTimes(time.monotonic(), worked, sum(os.times()[:4]))] if ours else []
