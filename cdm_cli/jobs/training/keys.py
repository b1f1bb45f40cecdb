"""All that is random in a step, as a function of (seed, step, place in the global batch).

Each process draws for the whole batch and takes the rows of its share: a device draws a thousand
images while it trains on one. So any number of processes sees the same images with the same noise
and the same dropout. Trainings of earlier versions drew by rank, and go on so.
"""

import hashlib
from typing import Any

import torch

from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.objective import Objective
from cdm_cli.nets.kernels.recorded import map_tensors
from cdm_cli.plans import TrainingConfig


def derive_seed(*parts: object) -> int:
    """Return a seed in 0..2^63 - 1: from the SHA-256 of the parts, as text joined by "/"."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


class Keys:
    """Draws the random numbers of a step for one process of a training."""

    def __init__(
        self, objective: Objective, training: TrainingConfig, world: World, device: torch.device
    ) -> None:
        self._objective, self._training, self._world = objective, training, world
        self._generator = torch.Generator(device)
        share = training.batch_size // world.size
        self._rows = slice(world.rank * share, (world.rank + 1) * share)
        self._by_rank = training.keyed_by == "rank"

    def _list_key(self, step: int) -> tuple[int, int, int]:
        return self._training.seed, step, self._world.rank if self._by_rank else 0

    def draw(self, step: int, batch: TrainBatch) -> tuple[Any, ...]:
        """Draw what the loss of a step needs at random; return that of this process's rows.

        The generator is seeded by (seed, step) and draws for the whole batch; in trainings of
        earlier versions it is seeded by the rank too, and draws for its share.
        """
        self._generator.manual_seed(derive_seed(*self._list_key(step)))
        if self._by_rank or self._world.size == 1:
            return self._objective.draw(batch, self._generator, len(batch.y))
        drawn = self._objective.draw(batch, self._generator, self._training.batch_size)
        return map_tensors(lambda x: x[self._rows].clone(), drawn)

    def begin_micro_batch(self, step: int, start: int) -> None:
        """Seed dropout for the rows from `start` on, where a training draws its numbers by rank."""
        if self._by_rank:
            torch.manual_seed(derive_seed(*self._list_key(step), "dropout", start))
