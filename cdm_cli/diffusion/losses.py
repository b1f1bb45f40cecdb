"""What training minimises and `cdm eval elbo` sums (paper, Section 2.1, Eq. 1).

Every term is a mean over C, H, W, hence [B]; likelihoods are in bits/dim. x_0 must be
exact bytes, uint8 / 127.5 - 1, for the discretised decoder at t = 1 to mean anything.
"""

import math

import torch
from torch import Tensor

from cdm_cli.diffusion.process import Gaussian, gather, q_posterior
from cdm_cli.diffusion.reverse import Fraction, p_mean_log_var, split_v
from cdm_cli.diffusion.schedules import Schedule
from cdm_cli.names import Variance

LN_2 = math.log(2)
HALF_BIN = 1 / 255  # bytes are 2 / 255 apart in [-1, 1]


def mean_over_image(x: Tensor) -> Tensor:
    """Return the mean over all but the first dimension, [B]."""
    return x.flatten(1).mean(1)


def simple(eps: Tensor, eps_theta: Tensor) -> Tensor:
    """Return L_simple of one t per example (Ho et al. 2020, Eq. 14; Section 2.1); [B].

    It is the mean over C, H, W of (eps - eps_theta)^2.
    """
    return mean_over_image((eps - eps_theta.to(eps)).square())


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """Return KL(q || p) of diagonal Gaussians in nats, elementwise [B, C, H, W]."""
    log_ratio = q.log_var - p.log_var
    square = (q.mean - p.mean).square() * (-p.log_var).exp()
    return 0.5 * (log_ratio.exp() - 1 - log_ratio + square)


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """Return log(Phi(high) - Phi(low)) for low < high, accurate in both tails.

    The interval is mirrored to the left of 0 first, where Phi keeps its relative precision.
    """
    right = low + high > 0
    low, high = torch.where(right, -high, low), torch.where(right, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + (-torch.expm1(log_low - log_high)).log()


def discretised_log_likelihood(x_0: Tensor, p: Gaussian) -> Tensor:
    """Return log p_theta(x_0 | x_1) of bytes, elementwise (Ho et al. 2020, Eq. 13).

    A byte's bin is x_0 +- 1 / 255; those of 0 and 255 are open to the outside. The Gaussian's
    exact distribution function is used, in float64: bins may be 1e-4 standard deviations wide.
    """
    mean, inv_std = p.mean.double(), (-0.5 * p.log_var.double()).exp()
    low = ((x_0 - mean) - HALF_BIN) * inv_std
    high = ((x_0 - mean) + HALF_BIN) * inv_std
    inside = log_normal_mass(low, high)
    below = torch.special.log_ndtr(high)
    above = torch.special.log_ndtr(-low)
    middle = torch.where(x_0 > 0.999, above, inside)
    return torch.where(x_0 < -0.999, below, middle).to(x_0)


def vlb(
    schedule: Schedule,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    *,
    variance: Variance,
    fraction: Fraction = "centred",
    clip: bool = False,
) -> Tensor:
    """Return the term of Eq. 1 that belongs to t, bits/dim [B], t within 1..T.

    t > 1: KL(q(x_{t-1} | x_t, x_0) || p_theta); t = 1: -log p_theta(x_0 | x_1). The sum over
    t = 1..T plus `prior_bits` is the bound. output is the raw [B, C or 2C, H, W]. Training
    leaves x_0 unclipped (clip = False): a clipped pixel would have no gradient.
    """
    p = p_mean_log_var(schedule, x_t, t, output, variance=variance, fraction=fraction, clip=clip)
    divergence = mean_over_image(kl(q_posterior(schedule, x_0, x_t, t), p))
    return torch.where(t == 1, _decoder(x_0, p, t), divergence) / LN_2


def _decoder(x_0: Tensor, p: Gaussian, t: Tensor) -> Tensor:
    """Return -log p_theta(x_0 | x_1) in nats where t = 1, anything elsewhere; [B].

    A CPU computes the rows with t = 1 alone, a tenth of the whole loss's time (64 x 3 x 32 x 32);
    a GPU computes all, since asking it for those rows would wait for the network.
    """
    if t.is_cuda:
        return -mean_over_image(discretised_log_likelihood(x_0, p))
    rows = (t == 1).nonzero().flatten()
    log_p = discretised_log_likelihood(x_0[rows], Gaussian(p.mean[rows], p.log_var[rows]))
    return x_0.new_zeros(len(t)).index_copy(0, rows, -mean_over_image(log_p))


def hybrid(
    schedule: Schedule,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    eps: Tensor,
    output: Tensor,
    *,
    variance: Variance = "learned",
    fraction: Fraction = "centred",
    vlb_weight: float = 0.001,
) -> Tensor:
    """Return L_simple + vlb_weight L_vlb (Nichol & Dhariwal 2021, Eq. 16), of one t each; [B].

    L_vlb is a sum over T terms, so its estimate from one uniform t is T times that term:
    the weight per term is vlb_weight T = 4 for T = 4000. The mean is detached inside L_vlb,
    which therefore trains the variance alone.
    """
    eps_theta, v = split_v(output, x_0.shape[1])
    if v is None:
        raise ValueError("L_hybrid needs an output of 2C channels")
    frozen_mean = torch.cat([eps_theta.detach(), v], 1)
    term = vlb(schedule, x_0, x_t, t, frozen_mean, variance=variance, fraction=fraction)
    return simple(eps, eps_theta) + vlb_weight * schedule.T * term


def prior_bits(schedule: Schedule, x_0: Tensor) -> Tensor:
    """Return L_T = KL(q(x_T | x_0) || N(0, I)) of Eq. 1, in bits/dim, float64 [B]."""
    T = torch.full((len(x_0),), schedule.T, device=x_0.device)
    alpha_bar_T = gather(schedule.alpha_bar, T)
    x_0_squared = mean_over_image(x_0.double().square())
    return 0.5 * (alpha_bar_T * (x_0_squared - 1) - torch.log1p(-alpha_bar_T)) / LN_2
