"""Which micro-batches a device had no memory for, kept between runs: none of them is tried again.

Finding it out takes seconds: most of a forward pass of the largest batch. What did not fit does not
fit where no more memory is free than was then, so a run comes to the size that trying would give.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.fast import find_cache_directory
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.errors import CdmError
from cdm_cli.jobs.runtime.device import describe_build, measure_device_memory, name_device_class
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.names import Precision
from cdm_cli.plans import Plan

SLACK = 2**25  # bytes by which free memory differs from run to run
LIBRARIES = 2**32  # bytes that kernels and work spaces take at most, once they are loaded


class Sizes:
    """Sizes that did not fit, and the free memory that each of them did not fit into.

    measure: returns the bytes that are free, the first time before a step is taken.
    """

    def __init__(self, path: Path, measure: Callable[[], int]) -> None:
        self._path, self._measure, self._free = path, measure, measure()
        self._known = _read(path)

    def did_not_fit(self, size: int) -> bool:
        """Return whether so many images at a time did not fit into at least this memory."""
        before = self._known.get(str(size))
        return before is not None and self._free <= before + SLACK

    def note(self, size: int) -> None:
        """Keep that so many images did not fit, once what they took has been given back.

        Nothing is kept where somebody else has taken memory meanwhile, or where nothing can be
        written.
        """
        if self._measure() < self._free - LIBRARIES:
            return
        self._known[str(size)] = max(self._free, self._known.get(str(size), -1))
        with suppress(OSError, CdmError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file_atomically(self._path, json.dumps(self._known).encode())


def open_sizes(plan: Plan, precision: Precision, session: Session) -> Sizes | None:
    """Return the micro-batches that earlier runs of such a training found too large for the device.

    None on a CPU, or with several processes, which might know different ones.
    """
    if session.device.type != "cuda" or session.world.size > 1:
        return None
    decides = {
        "stage": plan.stage.model_dump(mode="json"),
        "gradient checkpointing": plan.training.gradient_checkpointing,
        "batch size": plan.training.batch_size,  # of several parts the sums take memory, too
        "virtual ranks": plan.training.virtual_ranks,
        "precision": precision,
        "device": name_device_class(session.device),
        "build": describe_build(session.device),
    }
    text = json.dumps(decides, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Sizes(
        find_cache_directory("sizes") / f"{name}.json", partial(_measure_room, session.device)
    )


def _measure_room(device: torch.device) -> int:
    """Return the bytes of a CUDA device that this process may still take."""
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = total * torch.cuda.get_per_process_memory_fraction(device)
    return min(
        measure_device_memory(device) or 0, int(allowed) - torch.cuda.memory_reserved(device)
    )


def _read(path: Path) -> dict[str, int]:
    """Return what a file tells; nothing where it is not there, or is not ours."""
    with suppress(OSError, ValueError):
        found: Any = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return {size: free for size, free in found.items() if type(free) is int}  # pyright: ignore
    return {}
