"""The reverse process p_theta(x_{t-1} | x_t) (paper, Section 2.1).

The network's raw output is [B, C, H, W] (eps_theta) or [B, 2C, H, W] (eps_theta, then v,
which interpolates the variance). Images are [B, C, H, W], t is int64 [B] within 1..T.
"""

from typing import Literal

import torch
from torch import Tensor

from cdm_cli.diffusion.process import Gaussian, gather, predict_x_0, q_posterior
from cdm_cli.diffusion.schedules import Schedule
from cdm_cli.names import Variance

Fraction = Literal["centred", "plain"]


def split_v(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Split a raw output into eps_theta [B, C, H, W] and v (None where it has C channels).

    Raises ValueError for any other number of channels than C or 2C.
    """
    if output.shape[1] not in (channels, 2 * channels):
        raise ValueError(f"output has {output.shape[1]} channels, x_t has {channels}")
    eps_theta, v = output[:, :channels], output[:, channels:]
    return eps_theta, v if v.shape[1] else None


def predict_clipped_x_0(
    schedule: Schedule, x_t: Tensor, t: Tensor, eps: Tensor, clip: bool = True
) -> Tensor:
    """Return the x_0 that eps implies, clipped to the range of images.

    This is the only place where x_0 is clipped. x_0 = x_t / sqrt(alpha_bar_t) - ... divides
    by 3.9e-4 at t = T - 1 of the 4000-step cosine schedule: an error of 0.001 in eps moves
    x_0 by 2.5, far outside [-1, 1], and the mean of x_{t-1} with it.
    """
    x_0 = predict_x_0(schedule, x_t, t, eps)
    return x_0.clamp(-1, 1) if clip else x_0


def p_log_var(
    schedule: Schedule, t: Tensor, v: Tensor | None, *, variance: Variance, fraction: Fraction
) -> Tensor:
    """Return log Sigma_theta(x_t, t), [B, C, H, W] if learned, else float64 [B, 1, 1, 1].

    learned: log Sigma = f log beta_t + (1 - f) log beta_tilde_t (Section 2.1), where f = v
    ("plain", as printed) or f = (v + 1) / 2 ("centred", as guided-diffusion; a network that
    starts at v = 0 then starts half-way). f is not bounded. small: beta_tilde_t. large: beta_t,
    but beta_tilde_2 at t = 1 (Ho et al. 2020, their code), where it only serves likelihoods.
    On a respaced schedule beta and beta_tilde are the respaced ones.
    """
    low = gather(schedule.log_beta_tilde, t).view(-1, 1, 1, 1)
    if variance == "small":
        return low
    high = gather(schedule.beta, t).log().view(-1, 1, 1, 1)
    if variance == "large":
        return torch.where(t.view(-1, 1, 1, 1) == 1, low, high)
    if v is None:
        raise ValueError("variance = learned needs an output of 2C channels")
    f = (v + 1) / 2 if fraction == "centred" else v
    return low.to(v) + (high - low).to(v) * f


def p_mean_log_var(
    schedule: Schedule,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    *,
    variance: Variance,
    fraction: Fraction = "centred",
    clip: bool = True,
) -> Gaussian:
    """Return p_theta(x_{t-1} | x_t) from the network's raw output (Section 2.1).

    mu_theta is the posterior mean at the predicted x_0 (Ho et al. 2020, Eq. 11), which
    unclipped equals (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_theta) / sqrt(alpha_t).
    """
    eps_theta, v = split_v(output.to(x_t.dtype), x_t.shape[1])
    x_0 = predict_clipped_x_0(schedule, x_t, t, eps_theta, clip)
    mu = q_posterior(schedule, x_0, x_t, t).mean
    log_var = p_log_var(schedule, t, v, variance=variance, fraction=fraction)
    return Gaussian(mu, log_var.to(x_t))
