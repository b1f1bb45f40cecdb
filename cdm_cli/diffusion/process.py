"""The forward process q and its posterior (paper, Section 2.1).

Time is the paper's: t = 0..T, and s = 0..T for the low-resolution image; s = 0 means
"no conditioning augmentation" without a special case.

Coefficients stay float64 until they touch an image: 1 - alpha_bar_1 is about 1e-5 for
the 4000-step cosine schedule, and float32 would already lose 0.3 % of it.

Shapes: images are [B, C, H, W]; t, s and every coefficient are [B].
"""

from typing import NamedTuple

from torch import Tensor

from cdm_cli.diffusion.schedules import Schedule


class Gaussian(NamedTuple):
    """A diagonal Gaussian over images."""

    mean: Tensor  # [B, C, H, W]
    log_var: Tensor  # broadcasts to [B, C, H, W]


def gather(table: Tensor, t: Tensor) -> Tensor:
    """Return table[t], float64 [B], on the device of t."""
    return table.to(t.device)[t]


def scale(coef: Tensor, x: Tensor) -> Tensor:
    """Multiply each image of x by its coefficient, rounding the coefficient only once."""
    return coef.to(x).view(-1, 1, 1, 1) * x


def q_sample(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Draw x_t ~ q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I).

    Gaussian conditioning augmentation is the same call on the low-resolution image:
    z_s = q_sample(schedule, z_0, s, eps) (Section 3.2).
    """
    return q_sample_at(gather(schedule.alpha_bar, t), x_0, eps)


def q_sample_at(alpha_bar_t: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
    """Draw x_t at a noise level given as alpha_bar itself, float64 [B] (continuous time)."""
    return scale(alpha_bar_t.sqrt(), x_0) + scale((1 - alpha_bar_t).sqrt(), eps)


def predict_x_0(schedule: Schedule, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Return the x_0 of which `q_sample` makes x_t by eps, for t >= 1 (Ho et al. 2020, Eq. 15)."""
    alpha_bar_t = gather(schedule.alpha_bar, t)
    return scale(alpha_bar_t.rsqrt(), x_t) - scale((1 / alpha_bar_t - 1).sqrt(), eps)


def predict_eps(schedule: Schedule, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    """Return the eps by which `q_sample` makes x_t of x_0, for t >= 1."""
    alpha_bar_t = gather(schedule.alpha_bar, t)
    return scale((1 - alpha_bar_t).rsqrt(), x_t) - scale((1 / alpha_bar_t - 1).rsqrt(), x_0)


def q_posterior(schedule: Schedule, x_0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
    """Return q(x_{t-1} | x_t, x_0) for t >= 1 (Ho et al. 2020, Eqs. 6 and 7)."""
    beta_t = gather(schedule.beta, t)
    alpha_bar_t, alpha_bar_prev = gather(schedule.alpha_bar, t), gather(schedule.alpha_bar, t - 1)
    weight_x_0 = alpha_bar_prev.sqrt() * beta_t / (1 - alpha_bar_t)
    weight_x_t = (1 - beta_t).sqrt() * (1 - alpha_bar_prev) / (1 - alpha_bar_t)
    mean = scale(weight_x_0, x_0) + scale(weight_x_t, x_t)
    return Gaussian(mean, gather(schedule.log_beta_tilde, t).to(x_t).view(-1, 1, 1, 1))


def renoise(schedule: Schedule, x_a: Tensor, a: Tensor, b: Tensor, eps: Tensor) -> Tensor:
    """Continue the forward process from time a to b >= a: q(x_b | x_a) (Section 4.2)."""
    ratio = gather(schedule.alpha_bar, b) / gather(schedule.alpha_bar, a)
    return q_sample_at(ratio, x_a, eps)
