"""Conditioning augmentation in training (paper, Sections 3.1 and 3.2), and continuous time.

z_0 and z_s are low-resolution images [B, C, h, w] in [-1, 1]; s is int64 [B] within 0..T of the
low-resolution schedule. The order, where a stage has both: blur z_0, then noise it.

A generator draws on its own device, and the result moves to `device`.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from cdm_cli.config import ConditioningConfig
from cdm_cli.diffusion.process import gather, q_sample
from cdm_cli.diffusion.schedules import Schedule


def draw_s(
    config: ConditioningConfig, T: int, B: int, generator: Generator, device: torch.device | str
) -> Tensor:
    """Draw s per example, uniform over s_min..s_max, or 0 with probability s_zero; int64 [B].

    s_max None is T, that of the low-resolution schedule (amortisation, Section 3.2).
    """
    s_max = T if config.s_max is None else config.s_max
    at = generator.device
    s = torch.randint(config.s_min, s_max + 1, (B,), generator=generator, device=at)
    clean = torch.rand(B, generator=generator, device=at) < config.s_zero
    return s.masked_fill(clean, 0).to(device)


def gaussian(z_schedule: Schedule, z_0: Tensor, s: Tensor, eps: Tensor) -> Tensor:
    """Return z_s ~ q(z_s | z_0), at low resolution (Section 3.2); z_0 itself where s = 0."""
    return q_sample(z_schedule, z_0, s, eps)


def draw_blur(
    config: ConditioningConfig, B: int, generator: Generator, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Draw sigma of each example, uniform over blur_sigma, and whether it is blurred (Section 3.1).

    Returns float32 [B], in pixels, and bool [B], true with blur_probability.
    """
    low, high = config.blur_sigma
    sigma, coin = torch.rand(2, B, generator=generator, device=generator.device)
    sigma, apply = low + (high - low) * sigma, coin < config.blur_probability
    return sigma.to(device), apply.to(device)


def blur(z_0: Tensor, sigma: Tensor, apply: Tensor) -> Tensor:
    """Filter z_0 with a 3 x 3 Gaussian of width sigma, in pixels, [B] (Section 3.1).

    apply: bool [B]; an example without it is returned bit for bit. Padded by reflection, so h and w
    are 2 at least.
    """
    side = (-0.5 / sigma.double().square()).exp()
    centre = 1 / (1 + 2 * side)
    side, centre = ((side * centre).to(z_0), centre.to(z_0))
    side, centre = side.view(-1, 1, 1, 1), centre.view(-1, 1, 1, 1)
    z = pad(z_0, (1, 1, 1, 1), mode="reflect")
    z = side * (z[:, :, :-2] + z[:, :, 2:]) + centre * z[:, :, 1:-1]
    z = side * (z[..., :-2] + z[..., 2:]) + centre * z[..., 1:-1]
    return torch.where(apply.view(-1, 1, 1, 1), z, z_0)


def flip(mask: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
    """Mirror left and right where mask [B], in every one of images alike (Table 4b)."""
    mask = mask.view(-1, 1, 1, 1)
    return tuple(torch.where(mask, x.flip(-1), x) for x in images)


def continuous_alpha_bar(schedule: Schedule, t: Tensor, u: Tensor) -> Tensor:
    """Return alpha_bar of a continuous time within segment t; float64 [B], for t in 1..T.

    sqrt(alpha_bar) = sqrt(alpha_bar_t) + u (sqrt(alpha_bar_{t-1}) - sqrt(alpha_bar_t)) with
    u [B] uniform in [0, 1) (Chen et al. 2021, WaveGrad, Algorithm 1). The paper trains its 128
    and 256 stages so (Section 4.4) and does not say whether alpha_bar or its root is uniform.
    """
    root = gather(schedule.alpha_bar, t).sqrt()
    root_prev = gather(schedule.alpha_bar, t - 1).sqrt()
    return (root + u.double() * (root_prev - root)).square()
