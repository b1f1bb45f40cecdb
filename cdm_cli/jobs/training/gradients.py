"""The gradients of a step on one process's share of the batch, as many images at a time as fit.

With virtual ranks the batch is cut into so many pieces, whatever the processes: the gradients of a
piece are computed in one shape, and the pieces are added up in the order of a tree. So their sum
has the same bits on 1, 2, 4, … processes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from itertools import islice, starmap
from operator import itemgetter

import torch
from torch import Tensor

from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.device import order_gradients
from cdm_cli.jobs.runtime.ordered import add_tensors, copy_tensors, sum_in_order
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.keys import Keys
from cdm_cli.jobs.training.objective import Objective
from cdm_cli.jobs.training.sizes import Sizes
from cdm_cli.nets.kernels.recorded import Recorded, Tensors, map_tensors
from cdm_cli.nets.kernels.rehearsal import rehearse
from cdm_cli.nets.memory import halve, translate_memory_errors
from cdm_cli.plans import TrainingConfig

CPU_MICRO_BATCH = 256
FEW = 32  # images
SPECIAL = 16  # Triton compiles a number that it divides apart from others


def require_even_shares(training: TrainingConfig, processes: int) -> None:
    """Raise UsageError where so many processes cannot share a batch, or its virtual ranks."""
    batch, ranks = training.batch_size, training.virtual_ranks
    if ranks % processes:
        raise UsageError(
            f"the {ranks} virtual ranks of an exact training cannot be shared by {processes} "
            "processes",
            next=f"--gpus {1 << (min(ranks, processes).bit_length() - 1)}, or another NAME with "
            "--no-exact",
        )
    if batch % processes:
        raise UsageError(
            f"batch_size {batch} cannot be shared by {processes} processes",
            next=f"--batch-size {math.ceil(batch / processes) * processes}",
        )


def choose_few(num: int) -> int:
    """Return a small number of images, for which Triton compiles the same kernels as for num."""
    return num if num < FEW + SPECIAL else FEW + num % SPECIAL


class Gradients:
    """Computes the gradients of a network's parameters, one micro-batch after another.

    piece: the images of one virtual rank, or of this process's share of the batch. micro_batch:
    images at a time, 1..piece. halved_from: micro_batch before memory ran out, until that is
    reported (`Trainer.note_halving`). sizes: known not to fit, up to the first step.
    """

    def __init__(self, objective: Objective, training: TrainingConfig, session: Session) -> None:
        require_even_shares(training, session.world.size)
        self._objective, self._training = objective, training
        self._device, self._world = session.device, session.world
        self._keys = Keys(objective, training, session.world, session.device)
        self._parameters = list(objective.net.parameters())
        self._pieces = max(1, training.virtual_ranks // session.world.size)
        self.piece = training.batch_size // session.world.size // self._pieces
        self.micro_batch = min(self.piece, training.micro_batch or self._choose_micro_batch())
        self.halved_from: int | None = None
        self.sizes: Sizes | None = None
        self._recorded = Recorded(self._compute_micro_batch)

    def _choose_micro_batch(self) -> int:
        return self.piece if self._device.type == "cuda" else CPU_MICRO_BATCH

    def continue_with(self, micro_batch: int) -> None:
        """Take so many images at a time, as the run did before it was stopped; at most a piece."""
        self.micro_batch = min(self.piece, micro_batch)

    def compute(self, step: int, batch: TrainBatch) -> Tensor:
        """Leave the gradients of a step in the parameters' `grad`; return this process's loss.

        `Keys.draw` draws all that is random, by (seed, step); batch and draws are cut into
        micro-batches; each goes through `Objective.compute_losses` and backward, and their
        gradients are added up. The loss, a scalar, is this process's part of the mean over the
        global batch. Weights stay as they are. Where a device runs out of memory, all
        processes halve the micro-batch and take the step again. Raises MemoryFloorError where one
        image does not fit.
        """

        def try_once() -> Tensor:
            self._forget()  # what a replay would leave until new ones take its place
            inputs = batch, self._keys.draw(step, batch)
            micro_batches = (map_tensors(itemgetter(rows), inputs) for rows in self._cut(step))
            return self._add_up(starmap(self._choose_function(), micro_batches))

        return self._halve_until_fits(try_once)

    def _halve_until_fits(self, try_once: Callable[[], Tensor]) -> Tensor:
        """Return what `try_once` returns once no process runs out of memory in it."""
        self._train()
        while True:
            if self.sizes and self.micro_batch > 1 and self.sizes.did_not_fit(self.micro_batch):
                self._halve()
                continue
            loss = None
            with suppress(torch.OutOfMemoryError), translate_memory_errors():
                with order_gradients(self._device):
                    loss = try_once()
            if self._world.agree(loss is not None):
                assert loss is not None
                self.sizes = None  # later on, others may have taken memory
                return loss
            tried = self.micro_batch
            self._halve()
            if self.sizes:
                self.sizes.note(tried)

    def warm_up(self, step: int, batch: TrainBatch) -> None:
        """Compute the gradients of a few rows, and drop them, whatever the weights are.

        The kernels that a step of this size needs are compiled then, and libraries are loaded; a
        step computes as if this had not been.
        """
        self._train()
        rows, inputs = slice(0, choose_few(self.micro_batch)), (batch, self._keys.draw(step, batch))
        with suppress(torch.OutOfMemoryError), translate_memory_errors():
            with order_gradients(self._device):
                rehearse(self._compute_micro_batch, *map_tensors(itemgetter(rows), inputs))
        self.release()

    def _train(self) -> None:
        if not self._objective.net.training:
            self._objective.net.train()

    def _cut(self, step: int) -> Iterator[slice]:
        """Yield the rows of each micro-batch, within its piece, with dropout seeded for them."""
        for first in range(0, self._pieces * self.piece, self.piece):
            for start in range(first, first + self.piece, self.micro_batch):
                self._keys.begin_micro_batch(step, start)
                yield slice(start, min(start + self.micro_batch, first + self.piece))

    def _choose_function(self) -> Callable[..., Tensors]:
        """Return what computes gradients: recorded where all micro-batches have one size."""
        equal = self.piece % self.micro_batch == 0
        return (
            self._recorded if equal and self._device.type == "cuda" else self._compute_micro_batch
        )

    def _add_up(self, gradients: Iterator[Tensors]) -> Tensor:
        """Set the gradients to their sums over all micro-batches; return the sum of the losses."""
        total, *grads = sum_in_order(self._add_up_pieces(gradients), self._pieces)
        for parameter, grad in zip(self._parameters, grads, strict=True):
            parameter.grad = grad
        assert total is not None
        return total

    def _add_up_pieces(self, gradients: Iterator[Tensors]) -> Iterator[Tensors]:
        """Yield the loss and the gradients of each piece; the next one may take their memory."""
        others = math.ceil(self.piece / self.micro_batch) - 1
        for sums in gradients:
            rest = islice(gradients, others)
            yield reduce(add_tensors, rest, copy_tensors(sums)) if others else sums

    def _compute_micro_batch(self, batch: TrainBatch, draws: tuple[Tensor | None, ...]) -> Tensors:
        """Return the loss of some rows, and its gradient for each parameter."""
        self._forget()
        loss = self._objective.compute_losses(batch, draws).sum() / self._training.batch_size
        loss.backward()
        return loss.detach(), *(parameter.grad for parameter in self._parameters)

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def release(self) -> None:
        """Give back the device memory that a step holds until the next one."""
        self._recorded.forget()
        self._forget()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _halve(self) -> None:
        self.release()
        self.halved_from = self.halved_from or self.micro_batch
        self.micro_batch = halve(
            self.micro_batch,
            self._device,
            kept="the last checkpoint is complete",
            next="--set training.gradient_checkpointing=true, or a smaller model",
        )
