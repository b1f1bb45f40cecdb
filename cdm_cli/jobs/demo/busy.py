"""Whether other programs run beside a demo, whose threads would then wait for each other."""

import os
import time
from pathlib import Path
from statistics import median

RUNNING = Path("/proc/loadavg")  # of Linux: 0.20 0.18 0.12 1/80 11206
SAMPLES, SECONDS = 9, 0.02  # how often is looked, and how long between two looks
THREADS = "OMP_NUM_THREADS"


def advice() -> str:
    """Return what to type where other programs keep cores busy, "" where none do.

    The threads of a network share each layer and wait, spinning, for the last of them; one that has
    no core of its own holds up all others.
    """
    cores, others = len(os.sched_getaffinity(0)), count_others()
    if not others or cores == 1 or THREADS in os.environ:
        return ""
    free = max(1, cores - others)
    return (
        f"{others} other programs run on these {cores} cores, and networks train several times "
        f"slower than without them: {THREADS}={free} cdm demo leaves them theirs"
    )


def count_others() -> int:
    """Return how many threads of other programs run now, 0 where that cannot be known.

    It is the median of SAMPLES looks, each SECONDS after the one before.
    """
    try:
        return max(0, round(median(_count_running() for _ in range(SAMPLES))) - 1)
    except (OSError, ValueError, IndexError):
        return 0


def _count_running() -> int:
    time.sleep(SECONDS)
    return int(RUNNING.read_text().split()[3].partition("/")[0])
