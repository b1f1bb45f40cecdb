"""What is minimised: the loss of a diffusion stage, or the cross-entropy of a classifier.

An objective draws everything random of a batch at once and then takes any rows of both, so
that a batch gives the same gradient, to rounding, however it is cut into micro-batches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.cascade.draws import draw
from cdm_cli.cascade.stage import Stage, autocast
from cdm_cli.config import AnyStageConfig, ClassifierConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion.augment import flip
from cdm_cli.jobs.training.first_weights import draw_net
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
    def compute_losses(self) -> Callable[[TrainBatch, Any], Tensor]:
        """Return the loss of each example, [b], from some rows of a batch and of its draws."""
        ...


class StageObjective:
    """The loss of a diffusion stage (Sections 2.1 and 3): `Stage.compute_losses` and `draws.draw`.

    In a training that keys its numbers by place each image has its own seeds of dropout; in older
    ones torch's default generator drops.
    """

    def __init__(self, stage: Stage, training: TrainingConfig) -> None:
        self.stage, self.net, self.compute_losses = stage, stage.net, stage.compute_losses
        seeded = training.keyed_by == "place" and stage.config.model.dropout > 0
        dropouts = stage.net.num_blocks if seeded else 0
        self.draw = partial(draw, stage.config, flip=training.flip, dropouts=dropouts)


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

    def compute_losses(self, batch: TrainBatch, draws: Shifts) -> Tensor:
        """Return the cross-entropy of each example, float32 [b]."""
        x = crop_shifted(from_uint8(batch.x_0), draws.shift.T, self._training.crop_pad)
        (x,) = flip(draws.flip, x)
        return F.cross_entropy(self.logits(x), batch.y, reduction="none")

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits, float32 [B, K], of images x [B, C, H, W] in [-1, 1]."""
        with autocast(self._precision, x.device):
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
    config: AnyStageConfig,
    classes: Sequence[str],
    training: TrainingConfig,
    device: torch.device,
    precision: Precision,
    net: UNet | Classifier | None = None,
) -> StageObjective | ClassifierObjective:
    """Move a network to a device and return its loss; net None: of weights by training.seed."""
    net = (net or draw_net(config, training.seed)).to(device)
    if isinstance(config, ClassifierConfig):
        assert isinstance(net, Classifier)
        return ClassifierObjective(net, training, precision)
    assert isinstance(net, UNet)
    net.gradient_checkpointing = training.gradient_checkpointing
    stage = Stage(config, classes, net, precision=precision).to(device)
    return StageObjective(stage, training)
