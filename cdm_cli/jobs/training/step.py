"""One optimisation step: everything in it is a function of (seed, step) and the weights.

A step that would bring a number that is not finite into the network is skipped on the
device, without waiting for it: the optimizer's own `found_inf` keeps weights and moments as
they were.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.first_weights import FirstWeights
from cdm_cli.jobs.training.gradients import Gradients
from cdm_cli.jobs.training.numerics import Numerics, Resumed
from cdm_cli.jobs.training.objective import Objective
from cdm_cli.nets.adamw import AdamW
from cdm_cli.nets.ema import Ema
from cdm_cli.plans import TrainingConfig
from cdm_cli.settings import Later, Settings
from cdm_cli.startup import measure_part
from cdm_cli.units import format_count

MOMENTS = ("exp_avg", "exp_avg_sq")


def compute_learning_rate(training: TrainingConfig, step: int, *, cosine: bool) -> float:
    """Return the rate of a step, 1..steps: after a linear warm-up constant.

    cosine: the rate is multiplied with half a cosine that falls from 1 at step 1, in the warm-up
    too, to 0 at steps + 1.
    """
    rate = training.lr * min(1.0, step / max(training.warmup, 1))
    if not cosine:
        return rate
    done = min(1.0, (step - 1) / training.steps)
    return rate * 0.5 * (1 + math.cos(math.pi * done))


class Progress(NamedTuple):
    """What happened since the last `Trainer.read`, over all processes.

    loss, grad_norm: means over the steps that were taken, nan if none was. skipped: how many were
    not finite. in_a_row: the longest streak of those, which may have begun before.
    """

    loss: float
    grad_norm: float
    skipped: int
    in_a_row: int


class State(Settings):
    """What a checkpoint keeps besides tensors.

    micro_batch: images at a time, micro_batch_asked: those of `--set training.micro_batch`. sums:
    what the trainer has counted since its last `read`. row: the streak of bad steps now, and the
    longest since then. numerics: what decides the last bits of a step. resumed: where that changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    micro_batch: int = Field(ge=1)
    processes: int = Field(ge=1)
    ema_updates: int = Field(ge=0)
    sums: tuple[float, float, float, float]
    row: tuple[float, float]
    numerics: dict[str, bool | int | str] = Field(default_factory=dict[str, bool | int | str])
    resumed: tuple[Resumed, ...] = ()
    micro_batch_asked: Annotated[int | None, Later()] = Field(default=None, ge=1)


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
        weights: FirstWeights | None = None,
    ) -> None:
        """Take weights to begin with where the network does not have them yet."""
        device, world = session.device, session.world
        self.gradients = Gradients(objective, training, session)
        self.objective, self.training, self.cosine = objective, training, cosine
        self.session, self.device, self.world = session, device, world
        self._weights = weights
        self._numerics, self.resumed = dict(numerics or {}), tuple[Resumed, ...]()
        self.parameters = list(objective.net.parameters())
        self.ema = Ema(objective.net, training.ema_decay)
        self.optimizer = AdamW(self._group_parameters(), lr=training.lr)
        self._sums = torch.zeros(4, device=device, dtype=torch.float64)
        self._streaks = torch.zeros(2, device=device)

    @property
    def numerics(self) -> Numerics:
        """What decides the last bits of a step; images at a time do where nothing else differs."""
        pieces = {"micro_batch": self.gradients.micro_batch} if self.training.virtual_ranks else {}
        return {**self._numerics, **pieces}

    def _group_parameters(self) -> list[dict[str, Any]]:
        """Decay matrices only: gains and biases have no scale to lose."""
        decay = self.training.weight_decay
        wide = [p for p in self.parameters if p.ndim > 1]
        narrow = [p for p in self.parameters if p.ndim <= 1]
        return [{"params": wide, "weight_decay": decay}, {"params": narrow, "weight_decay": 0.0}]

    def step(self, step: int, batch: TrainBatch) -> None:
        """Take step number `step` on this rank's share of the global batch.

        Gradients (`Gradients.compute`) are added up over processes, not clipped; Adam steps unless
        norm or loss is not finite; the average is updated after every step, a skipped one too.
        """
        self._update(step, self.gradients.compute(step, batch))

    def await_first_weights(self, step: int, batch: TrainBatch) -> None:
        """Let the network have its first weights, where they are still being drawn.

        What a first step does once is done meanwhile (`Gradients.warm_up`).
        """
        if self._weights is None:
            return
        self.gradients.warm_up(step, batch)
        with measure_part("weights"):
            self._weights.fill(self.objective.net)
        self.ema.restart()
        self._weights = None

    def note_halving(self, step: int) -> str | None:
        """Return the message that memory ran out at a step, once for each time; None if it did not.

        With virtual ranks the new micro-batch changes the last bits, which is noted in `resumed`.
        """
        gradients = self.gradients
        before, gradients.halved_from = gradients.halved_from, None
        if before is None:
            return None
        said = (
            f"out of device memory: the batch of {self.training.batch_size} is now taken "
            f"{format_count(gradients.micro_batch, 'image')} at a time; the result is the same"
        )
        if not self.training.virtual_ranks:
            return said
        change = Resumed(
            step=step - 1,
            before={"micro_batch": before},
            now={"micro_batch": gradients.micro_batch},
        )
        self.resumed = (*self.resumed, change)
        return f"{said} to rounding, no longer to the bit"

    @torch.no_grad()
    def _update(self, step: int, loss: Tensor) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        self.world.sum_(grads, loss, in_order=self.training.virtual_ranks > 0)
        norm = torch.nn.utils.get_total_norm(grads)
        bad = ~(norm.isfinite() & loss.isfinite())
        for group in self.optimizer.param_groups:
            group["lr"] = compute_learning_rate(self.training, step, cosine=self.cosine)
        self.optimizer.found_inf = bad.float()
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
        row = torch.where(bad, self._streaks[0] + 1, zero)
        self._streaks = torch.stack([row, torch.maximum(self._streaks[1], row)])

    def count_streak(self) -> int:
        """Return how many steps in a row, up to the last one, were not finite; waits for it."""
        return int(self._streaks[0].item())

    def read(self) -> Progress:
        """Return means and counts since the last call, and reset them; waits for the device."""
        loss, norm, count, skipped = self._sums.tolist()
        worst = int(self._streaks[1].item())
        self._sums.zero_()
        self._streaks[1] = self._streaks[0]
        count = count or math.nan
        return Progress(loss / count, norm / count, int(skipped), worst)

    def flatten_optimizer(self) -> dict[str, Tensor]:
        """Return the state of the optimizer, flat: "exp_avg.NAME", and the steps taken, "step"."""
        flat: dict[str, Tensor] = {"step": torch.zeros(())}
        for name, parameter in self.objective.net.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            for moment in MOMENTS:
                flat[f"{moment}.{name}"] = state.get(moment, torch.zeros_like(parameter))
            flat["step"] = state.get("step", flat["step"])
        return flat

    def collect_state(self) -> State:
        """Return what a checkpoint keeps besides tensors."""
        state = {
            "micro_batch": self.gradients.micro_batch,
            "processes": self.world.size,
            "ema_updates": self.ema.num_updates,
            "sums": self._sums.tolist(),
            "row": self._streaks.tolist(),
            "numerics": self.numerics,
            "resumed": self.resumed,
            "micro_batch_asked": self.training.micro_batch,
        }
        return State.model_validate(state)

    def restore(
        self,
        model: Mapping[str, Tensor],
        ema: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: State,
    ) -> None:
        """Load a checkpoint into network, average and optimizer; its tensors are copied.

        Images at a time are those of the checkpoint, unless others are asked for now, or another
        number of processes shares a batch. First weights that are still being drawn are given up.
        """
        if self._weights is not None:
            self._weights.give_up()
            self._weights = None
        self.objective.net.load_state_dict(dict(model))
        self.ema.load_state_dict(ema, state.ema_updates)
        for name, parameter in self.objective.net.named_parameters():
            moments = {
                m: torch.empty_like(parameter).copy_(optimizer[f"{m}.{name}"]) for m in MOMENTS
            }
            taken = optimizer["step"].clone().to(self.device)
            self.optimizer.state[parameter] = {"step": taken, **moments}
        same_share = state.processes == self.world.size or self.training.virtual_ranks
        if same_share and state.micro_batch_asked == self.training.micro_batch:
            self.gradients.continue_with(state.micro_batch)
        self._sums.copy_(torch.tensor(state.sums, dtype=torch.float64))
        self._streaks.copy_(torch.tensor(state.row))
