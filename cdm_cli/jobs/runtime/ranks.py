"""Which process of a job this is, as torchrun or srun says; known before torch is loaded."""

import os
from typing import NamedTuple

from cdm_cli.errors import UsageError


class Ranks(NamedTuple):
    """The place of a process among all of a job, and among those of its host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def is_started_elsewhere() -> bool:
    """Whether torchrun or srun started this process, alone or as one of several."""
    return read_ranks() != Ranks() or ("RANK" in os.environ and "WORLD_SIZE" in os.environ)


def read_ranks() -> Ranks:
    """Return what the environment says; SLURM counts only within a job step of several tasks.

    A plain `cdm` in a batch script is one process. Raises UsageError for what is no number, and
    for a rank that the job does not have.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _read("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if read_number("SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in os.environ:
        return _read("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    return Ranks()


def _read(rank: str, size: str, local_rank: str) -> Ranks:
    found = Ranks(read_number(rank, 0), read_number(size, 1), read_number(local_rank, 0))
    if found.rank >= found.size:
        raise UsageError(
            f"{rank}={found.rank}: {size}={found.size} has ranks 0..{found.size - 1}",
            next="start each rank once; for a process of its own, unset both",
        )
    return found


def read_number(name: str, default: int) -> int:
    """Return a whole number of the environment; raise UsageError where it is another word."""
    word = os.environ.get(name, str(default))
    if not word.isdecimal():
        raise UsageError(f"{name}={word}: expected a whole number", next="unset it")
    return int(word)
