"""Everything that is random in the loss of a training batch."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.diffusion import augment
from cdm_cli.nets.kernels.dropout import SEEDS


class Draws(NamedTuple):
    """Everything random in the loss of one batch, so that its rows add up to the whole.

    seeds None: nothing is dropped, or torch's default generator says what.
    """

    t: Tensor  # int64 [B], 1..T
    u: Tensor  # float64 [B], place within the segment of t (continuous noise only)
    eps: Tensor  # [B, C, H, W]
    flip: Tensor  # bool [B]
    s: Tensor | None  # int64 [B]
    eps_z: Tensor | None  # [B, C, h, w]
    sigma: Tensor | None  # [B], width of the blur
    blurred: Tensor | None  # bool [B]
    seeds: Tensor | None  # int64 [B, residual blocks], 0..2^32 - 1, of dropout


def draw(
    config: StageConfig, batch: TrainBatch, generator: Generator, num: int, *,
    flip: bool, dropouts: int,
) -> Draws:  # fmt: skip
    """Draw t, eps, augmentations and seeds of dropout from the generator, on its device.

    t is uniform over 1..T; flip, where it is asked for, has probability 1/2; s is that of
    `augment.draw_s`. num: how many images are drawn for, which are of the shapes of the batch.
    dropouts: seeds of each image, 0 where torch's default generator drops or nothing does; their
    number changes nothing else that is drawn.
    """
    device = generator.device
    t = torch.randint(1, config.schedule.T + 1, (num,), generator=generator, device=device)
    u = torch.rand(num, generator=generator, device=device, dtype=torch.float64)
    eps = torch.randn(num, *batch.x_0.shape[1:], generator=generator, device=device)
    coin = torch.rand(num, generator=generator, device=device) < 0.5
    s = eps_z = sigma = blurred = seeds = None
    conditioning = config.conditioning
    if conditioning and batch.z_0 is not None:
        if conditioning.gaussian:
            s = augment.draw_s(conditioning, conditioning.z_schedule.T, num, generator, device)
            eps_z = torch.randn(num, *batch.z_0.shape[1:], generator=generator, device=device)
        if conditioning.blur:
            sigma, blurred = augment.draw_blur(conditioning, num, generator, device)
    if dropouts:
        seeds = torch.randint(SEEDS, (num, dropouts), generator=generator, device=device)
    coin = coin if flip else torch.zeros_like(coin)
    return Draws(t, u, eps, coin, s, eps_z, sigma, blurred, seeds)
