"""What is minimised: the loss of a diffusion stage, or the cross-entropy of a classifier.

An objective draws everything random of a batch at once and then takes any rows of both, so
that a batch gives the same gradient, to rounding, however it is cut into micro-batches.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.cascade.checkpoint import empty_net
from cdm_cli.cascade.stage import Stage, uses_bf16
from cdm_cli.config import ClassifierConfig, StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion.augment import flip
from cdm_cli.jobs.training.first_weights import (
    FirstWeights,
    draw_beside,
    draw_net,
    worth_a_thread,
)
from cdm_cli.names import Precision
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.unet import UNet
from cdm_cli.plans import TrainingConfig


class Objective(Protocol):
    """A network and the loss of a batch, all that is random in it drawn beforehand."""

    @property
    def net(self) -> nn.Module:
        """The network whose parameters are trained."""
        ...

    @property
    def draw(self) -> Callable[[TrainBatch, torch.Generator, int], tuple[Tensor | None, ...]]:
        """Draw all that is random in the loss of num images; of the batch only shapes are used."""
        ...

    @property
    def losses(self) -> Callable[[TrainBatch, Any], Tensor]:
        """Return the loss of each example, [b], from some rows of a batch and of its draws."""
        ...


class StageObjective:
    """The loss of a diffusion stage (Sections 2.1 and 3).

    losses is `Stage.loss_of`, draw is `Stage.draw`.
    """

    def __init__(self, stage: Stage, training: TrainingConfig) -> None:
        self.stage, self.net, self.losses = stage, stage.net, stage.loss_of
        seeds = training.keyed_by == "place"
        self.draw = partial(stage.draw, flip=training.flip, seeds=seeds)


class Shifts(NamedTuple):
    """What is random in the loss of a classifier."""

    shift: Tensor  # int64 [B, 2], 0..2 crop_pad
    flip: Tensor  # bool [B]


class ClassifierObjective:
    """Cross-entropy on randomly shifted and mirrored images."""

    def __init__(self, net: Classifier, training: TrainingConfig, precision: Precision) -> None:
        self.net, self._training = net, training
        self._precision: Precision = precision

    def draw(self, batch: TrainBatch, generator: torch.Generator, num: int) -> Shifts:
        """Draw a shift, 0..2 crop_pad down and across, and a flip for each of num images."""
        pad, at = self._training.crop_pad, generator.device
        shift = torch.randint(0, 2 * pad + 1, (2, num), generator=generator, device=at)
        coin = torch.rand(num, generator=generator, device=at) < 0.5 * self._training.flip
        return Shifts(shift.T, coin)

    def losses(self, batch: TrainBatch, draws: Shifts) -> Tensor:
        """Return the cross-entropy of each example, float32 [b]."""
        x = crop_shifted(from_uint8(batch.x_0), draws.shift.T, self._training.crop_pad)
        (x,) = flip(draws.flip, x)
        return F.cross_entropy(self.logits(x), batch.y, reduction="none")

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits, float32 [B, K], of images x [B, C, H, W] in [-1, 1]."""
        bf16 = uses_bf16(self._precision, x.device)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.net(x)[1].float()


def crop_shifted(x: Tensor, shift: Tensor, pad: int) -> Tensor:
    """Pad x [B, C, H, W] by reflection and cut out windows at shift [2, B], each in 0..2 pad."""
    if pad == 0:
        return x
    B, C, H, W = x.shape
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    rows = shift[0].view(B, 1, 1, 1) + torch.arange(H, device=x.device).view(1, 1, H, 1)
    columns = shift[1].view(B, 1, 1, 1) + torch.arange(W, device=x.device).view(1, 1, 1, W)
    padded = padded.gather(2, rows.expand(B, C, H, W + 2 * pad))
    return padded.gather(3, columns.expand(B, C, H, W))


def build_objective(
    config: StageConfig | ClassifierConfig,
    classes: Sequence[str],
    training: TrainingConfig,
    device: torch.device,
    precision: Precision,
) -> StageObjective | ClassifierObjective:
    """Build a network with the weights that training.seed draws, and its loss, on a device."""
    net = draw_net(config, training.seed)
    return _objective_of(net, config, classes, training, device, precision)


def begin_objective(
    config: StageConfig | ClassifierConfig,
    classes: Sequence[str],
    training: TrainingConfig,
    device: torch.device,
    precision: Precision,
    stack: ExitStack,
) -> tuple[StageObjective | ClassifierObjective, FirstWeights | None]:
    """Do as `build_objective`; where the weights take long, draw them beside what comes next.

    The network then has its weights once `FirstWeights.fill` gives them; the stack ends the thread.
    """
    if not worth_a_thread(config, device):
        return build_objective(config, classes, training, device, precision), None
    weights = stack.enter_context(draw_beside(config, training.seed))
    net = empty_net(config).to_empty(device=device)
    return _objective_of(net, config, classes, training, device, precision), weights


def _objective_of(
    net: UNet | Classifier,
    config: StageConfig | ClassifierConfig,
    classes: Sequence[str],
    training: TrainingConfig,
    device: torch.device,
    precision: Precision,
) -> StageObjective | ClassifierObjective:
    """Return the loss of a network, which is moved to a device."""
    if isinstance(net, Classifier):
        assert isinstance(config, ClassifierConfig)
        return ClassifierObjective(net.to(device), training, precision)
    assert isinstance(config, StageConfig)
    net.gradient_checkpointing = training.gradient_checkpointing
    stage = Stage(config, classes, net, precision=precision).to(device)
    return StageObjective(stage, training)
