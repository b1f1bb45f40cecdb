"""Which process of a job this is, as torchrun or srun says; known before torch is loaded."""

import os
from typing import NamedTuple


class Ranks(NamedTuple):
    """The place of a process among all of a job, and among those of its host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def is_started_elsewhere() -> bool:
    """Whether torchrun or srun started this process, alone or as one of several."""
    return ranks() != Ranks() or ("RANK" in os.environ and "WORLD_SIZE" in os.environ)


def ranks() -> Ranks:
    """Return what the environment says; SLURM counts only within a job step of several tasks.

    A plain `cdm` in a batch script is one process.
    """
    seen = os.environ.get
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return Ranks(int(seen("RANK", 0)), int(seen("WORLD_SIZE", 1)), int(seen("LOCAL_RANK", 0)))
    if int(seen("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return Ranks(
            int(seen("SLURM_PROCID", 0)),
            int(seen("SLURM_STEP_NUM_TASKS", 1)),
            int(seen("SLURM_LOCALID", 0)),
        )
    return Ranks()
