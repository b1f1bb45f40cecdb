"""Data whose ideal network is a formula: what samplers and bounds must do is then known exactly.

Images are [B, C, H, W] of independent, identically distributed pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cdm_cli.diffusion.process import gather
from cdm_cli.diffusion.schedules import Schedule

EpsTheta = Callable[[Tensor, Tensor], Tensor]


def coefficient(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return gather(table, t).to(x).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class GaussianData:
    """Pixels ~ N(mean, std^2); every conditional of the forward process is Gaussian."""

    mean: float
    std: float

    def sample(self, eps: Tensor) -> Tensor:
        return self.mean + self.std * eps

    def moments(self, schedule: Schedule, t: int) -> tuple[float, float]:
        """Mean and variance of q(x_t)."""
        alpha_bar = schedule.alpha_bar[t].item()
        return alpha_bar**0.5 * self.mean, alpha_bar * self.std**2 + 1 - alpha_bar

    def covariance(self, schedule: Schedule, s: int, t: int) -> float:
        """Covariance of q(x_s, x_t): what x_t adds to x_s, s <= t, is noise of its own."""
        low, high = sorted((s, t))
        ratio = (schedule.alpha_bar[high] / schedule.alpha_bar[low]).item()
        return ratio**0.5 * self.moments(schedule, low)[1]

    def log_density(self, x: Tensor) -> Tensor:
        square = ((x - self.mean) / self.std) ** 2
        return -0.5 * square - math.log(self.std) - 0.5 * math.log(2 * math.pi)

    def eps_theta(self, schedule: Schedule) -> EpsTheta:
        """E[eps | x_t]: what L_simple would teach a network with [B, C, H, W] output."""

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            alpha_bar = coefficient(schedule.alpha_bar, t, x_t)
            variance = alpha_bar * self.std**2 + 1 - alpha_bar
            return (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * self.mean) / variance

        return network

    def with_v(self, schedule: Schedule) -> EpsTheta:
        """eps_theta and the v ("centred") of the true variance of x_{t-1} given x_t."""
        eps_theta = self.eps_theta(schedule)
        beta, beta_tilde, alpha_bar = schedule.beta, schedule.beta_tilde, schedule.alpha_bar
        var_x_0 = self.std**2 * (1 - alpha_bar) / (alpha_bar * self.std**2 + 1 - alpha_bar)
        weight = alpha_bar[:-1] * (beta[1:] / (1 - alpha_bar[1:])) ** 2
        log_var = (beta_tilde[1:] + weight * var_x_0[1:]).log()
        low, high = schedule.log_beta_tilde[1:], beta[1:].log()
        v = torch.cat([low.new_zeros(1), 2 * (log_var - low) / (high - low) - 1])

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            v_t = coefficient(v, t, x_t).expand_as(x_t)
            return torch.cat([eps_theta(x_t, t), v_t], 1)

        return network


@dataclass(frozen=True)
class MixtureData:
    """Pixels from two Gaussians of equal weight and width: data with two modes."""

    low: float
    high: float
    std: float

    def sample(self, eps: Tensor, coin: Tensor) -> Tensor:
        return torch.where(coin < 0.5, self.low, self.high) + self.std * eps

    def eps_theta(self, schedule: Schedule) -> EpsTheta:
        def network(x_t: Tensor, t: Tensor) -> Tensor:
            alpha_bar = coefficient(schedule.alpha_bar, t, x_t)
            variance = alpha_bar * self.std**2 + 1 - alpha_bar
            from_low = x_t - alpha_bar.sqrt() * self.low
            from_high = x_t - alpha_bar.sqrt() * self.high
            is_low = ((from_high**2 - from_low**2) / (2 * variance)).sigmoid()
            distance = is_low * from_low + (1 - is_low) * from_high
            return (1 - alpha_bar).sqrt() * distance / variance

        return network


class Impulses:
    """Sources of noise, one per draw, each of which moves one row of the batch alone.

    A sampler with an affine network maps them affinely to x_t. Row 0 sees no noise, and so
    is the mean; the variance is the sum of the squared responses: no sampling error at all.
    """

    def __init__(self, num: int) -> None:
        self.num, self.used = num, 0

    def source(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Draw N(mean, std^2), float64 [num + 1, 1, 1, 1]."""
        self.used += 1
        x = torch.full((self.num + 1, 1, 1, 1), mean, dtype=torch.float64)
        x[self.used] += std
        return x

    def randn_like(self, x: Tensor) -> Tensor:
        return self.source().to(x)

    def moments(self, x: Tensor) -> tuple[float, float]:
        return x.flatten()[0].item(), self.covariance(x, x)

    def covariance(self, x: Tensor, y: Tensor) -> float:
        x, y = x.flatten(), y.flatten()
        return ((x[1:] - x[0]) * (y[1:] - y[0])).sum().item()
