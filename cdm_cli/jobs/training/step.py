"""One optimisation step: everything in it is a function of (seed, step, rank) and the weights.

A step that would bring a number that is not finite into the network is skipped on the
device, without waiting for it: the optimizer's own `found_inf` keeps weights and moments as
they were.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from cdm_cli.config import TrainingConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import MemoryFloorError, UsageError
from cdm_cli.jobs.runtime.device import reproducible_gradients
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.numerics import Numerics, Resumed
from cdm_cli.jobs.training.objective import Objective
from cdm_cli.nets.ema import Ema
from cdm_cli.nets.kernels.recorded import Recorded, Tensors, map_tensors
from cdm_cli.nets.memory import memory_errors
from cdm_cli.settings import Settings

MOMENTS = ("exp_avg", "exp_avg_sq")
CPU_MICRO_BATCH = 256


def seed_of(*parts: object) -> int:
    """Return a seed in 0..2^63 - 1 that no other parts share (SHA-256)."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def learning_rate(training: TrainingConfig, step: int, *, cosine: bool) -> float:
    """Return the rate of a step, 1..steps: linear warm-up, then constant or a cosine to 0."""
    rate = training.lr * min(1.0, step / max(training.warmup, 1))
    if not cosine:
        return rate
    done = min(1.0, (step - 1) / training.steps)
    return rate * 0.5 * (1 + math.cos(math.pi * done))


def _add(sums: Tensors, part: Tensors) -> Tensors:
    """Add what a part of a batch gave to the sums so far, which are tensors of their own."""
    if not sums:
        return tuple(None if x is None else x.clone() for x in part)
    own, new = ([x for x in tensors if x is not None] for tensors in (sums, part))
    torch._foreach_add_(own, new)  # pyright: ignore
    return sums


class Progress(NamedTuple):
    """What happened since the last `read`, over all ranks."""

    loss: float
    grad_norm: float
    skipped: int
    in_a_row: int


class State(Settings):
    """What a checkpoint keeps besides tensors; `sums` and `row` are what `read` tells next.

    numerics: what decides the last bits of a step. resumed: where that changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    micro_batch: int = Field(ge=1)
    processes: int = Field(ge=1)
    ema_updates: int = Field(ge=0)
    sums: tuple[float, float, float, float]
    row: tuple[float, float]
    numerics: dict[str, bool | int | str] = Field(default_factory=dict[str, bool | int | str])
    resumed: tuple[Resumed, ...] = ()


class Trainer:
    """A network, its optimizer and its average, taking one step at a time."""

    def __init__(
        self,
        objective: Objective,
        training: TrainingConfig,
        session: Session,
        *,
        cosine: bool,
        numerics: Numerics | None = None,
    ) -> None:
        device, world = session.device, session.world
        if training.batch_size % world.size:
            raise UsageError(
                f"batch_size {training.batch_size} cannot be shared by {world.size} processes",
                next=f"--batch-size {math.ceil(training.batch_size / world.size) * world.size}",
            )
        self.objective, self.training, self.cosine = objective, training, cosine
        self.session, self.device, self.world = session, device, world
        self.numerics, self.resumed = dict(numerics or {}), tuple[Resumed, ...]()
        self.local_batch = training.batch_size // world.size
        self.micro_batch = min(self.local_batch, training.micro_batch or self._first_micro_batch())
        self.halved = False
        self.names = [name for name, _ in objective.net.named_parameters()]
        self.parameters = list(objective.net.parameters())
        self.ema = Ema(objective.net, training.ema_decay)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=training.lr, fused=True)
        self._recorded = Recorded(self._gradients)
        self._generator = torch.Generator(device)
        self._sums = torch.zeros(4, device=device, dtype=torch.float64)
        self._row = torch.zeros(2, device=device)

    def _first_micro_batch(self) -> int:
        return self.local_batch if self.device.type == "cuda" else CPU_MICRO_BATCH

    def _groups(self) -> list[dict[str, Any]]:
        """Decay matrices only: gains and biases have no scale to lose."""
        decay = self.training.weight_decay
        wide = [p for p in self.parameters if p.ndim > 1]
        narrow = [p for p in self.parameters if p.ndim <= 1]
        return [
            {"params": wide, "weight_decay": decay},
            {"params": narrow, "weight_decay": 0.0},
        ]

    def step(self, step: int, batch: TrainBatch) -> None:
        """Take step number `step` on this rank's share of the global batch, as `settle` does."""
        self._update(step, self.settle(step, batch))

    def settle(self, step: int, batch: TrainBatch) -> Tensor:
        """Compute the gradients of a step, whose loss is returned; the weights are left alone.

        Where a device runs out of memory, all ranks halve the micro-batch and start the step
        again. Raises MemoryFloorError where one image does not fit.
        """
        if not self.objective.net.training:
            self.objective.net.train()
        while True:
            loss = None
            with suppress(torch.OutOfMemoryError), memory_errors():
                with reproducible_gradients(self.device):
                    loss = self._accumulate(step, batch)
            if self.world.agree(loss is not None):
                assert loss is not None
                return loss
            self._halve()

    def _accumulate(self, step: int, batch: TrainBatch) -> Tensor:
        """Set the gradients of the mean loss over the global batch; return that loss."""
        key = (self.training.seed, step, self.world.rank)
        self._generator.manual_seed(seed_of(*key))
        inputs = batch, self.objective.draw(batch, self._generator)
        sums = tuple[Tensor | None, ...]()
        whole = self.micro_batch == self.local_batch
        for start in range(0, self.local_batch, self.micro_batch):
            torch.manual_seed(seed_of(*key, "dropout", start))
            rows = slice(start, start + self.micro_batch)
            part = self._evaluated()(*map_tensors(lambda x, rows=rows: x[rows], inputs))
            sums = part if whole else _add(sums, part)
        total, *grads = sums
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad
        assert total is not None
        return total

    def _evaluated(self) -> Callable[..., Tensors]:
        """Return what computes gradients: recorded where all parts have one size."""
        equal = self.local_batch % self.micro_batch == 0
        return self._recorded if equal and self.device.type == "cuda" else self._gradients

    def _gradients(self, batch: TrainBatch, draws: tuple[Tensor | None, ...]) -> Tensors:
        """Return the loss of some rows, and its gradient for each parameter."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective.losses(batch, draws).sum() / self.training.batch_size
        loss.backward()
        return loss.detach(), *(parameter.grad for parameter in self.parameters)

    def release(self) -> None:
        """Give back the device memory that a step holds until the next one."""
        self._recorded.forget()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _halve(self) -> None:
        if self.micro_batch == 1:
            raise MemoryFloorError(
                f"one image at a time does not fit into the memory of {self.device}",
                kept="the last checkpoint is complete",
                next="--set training.gradient_checkpointing=true, or a smaller model",
            )
        self.micro_batch, self.halved = math.ceil(self.micro_batch / 2), True
        self.release()

    @torch.no_grad()
    def _update(self, step: int, loss: Tensor) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        self.world.sum_(grads, loss)
        norm = torch.nn.utils.get_total_norm(grads)
        bad = ~(norm.isfinite() & loss.isfinite())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, step, cosine=self.cosine)
        self.optimizer.found_inf = bad.float()  # pyright: ignore[reportAttributeAccessIssue]
        self.optimizer.step()
        self.ema.update()
        self._note(loss, norm, bad)

    def _note(self, loss: Tensor, norm: Tensor, bad: Tensor) -> None:
        """Count on the device; `read` is where the processor waits for it.

        A number that is assigned to an entry of a tensor would be copied there, and waited for.
        """
        zero, one = torch.zeros_like(loss), torch.ones_like(loss)
        seen, lost = torch.stack([loss, norm, one, zero]), torch.stack([zero, zero, zero, one])
        self._sums += torch.where(bad, lost, seen).double()
        row = torch.where(bad, self._row[0] + 1, zero)
        self._row = torch.stack([row, torch.maximum(self._row[1], row)])

    def streak(self) -> int:
        """Return how many steps in a row, up to the last one, were not finite; waits for it."""
        return int(self._row[0].item())

    def read(self) -> Progress:
        """Return means since the last call, and start them again. in_a_row: the longest so far."""
        loss, norm, count, skipped = self._sums.tolist()
        worst = int(self._row[1].item())
        self._sums.zero_()
        self._row[1] = self._row[0]
        count = count or math.nan
        return Progress(loss / count, norm / count, int(skipped), worst)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the state of the optimizer, flat: "exp_avg.NAME", and the steps taken, "step"."""
        flat: dict[str, Tensor] = {"step": torch.zeros(())}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            state = self.optimizer.state.get(parameter, {})
            for moment in MOMENTS:
                flat[f"{moment}.{name}"] = state.get(moment, torch.zeros_like(parameter))
            flat["step"] = state.get("step", flat["step"])
        return flat

    def state(self) -> State:
        """Return what a checkpoint keeps besides tensors."""
        state = {
            "micro_batch": self.micro_batch,
            "processes": self.world.size,
            "ema_updates": self.ema.num_updates,
            "sums": self._sums.tolist(),
            "row": self._row.tolist(),
            "numerics": self.numerics,
            "resumed": self.resumed,
        }
        return State.model_validate(state)

    def restore(
        self,
        model: Mapping[str, Tensor],
        ema: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: State,
    ) -> None:
        """Continue from a checkpoint; its tensors are copied."""
        self.objective.net.load_state_dict(dict(model))
        self.ema.load_state_dict(ema, state.ema_updates)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            moments = {
                m: torch.empty_like(parameter).copy_(optimizer[f"{m}.{name}"]) for m in MOMENTS
            }
            taken = optimizer["step"].clone().to(self.device)
            self.optimizer.state[parameter] = {"step": taken, **moments}
        if state.processes == self.world.size:
            self.micro_batch = min(self.local_batch, state.micro_batch)
        self._sums.copy_(torch.tensor(state.sums, dtype=torch.float64))
        self._row.copy_(torch.tensor(state.row))
