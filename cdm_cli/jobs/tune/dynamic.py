"""The times of few steps with the lowest bound on bits, exactly (Watson et al. 2021).

Of a chain with the small variance, the divergence of the step from t to s < t is half of (SNR_s -
SNR_t) E|x_0 - x_0_theta(x_t)|^2: the sum that `cdm eval elbo` makes needs one number for each
time, whatever the step. So a dynamic programme over a grid of times finds the best of all lists
at once. The last step is the decoder's, whose variance depends on the step before
(`Schedule.log_beta_tilde`); the prior pays for a first time below T.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.diffusion.losses import discretised_log_likelihood
from cdm_cli.diffusion.process import Gaussian, q_sample
from cdm_cli.diffusion.reverse import predict_clipped_x_0, split_v
from cdm_cli.diffusion.samplers import EpsTheta
from cdm_cli.diffusion.schedules import Schedule

Array = NDArray[np.float64]
PIXELS = 8192  # of each time, that the decoder's share is measured on


@dataclass(frozen=True)
class Predictions:
    """How far x_0 is missed at each of G times, ascending.

    square: the mean square of the error of x_0 [G]. x_0, mean: some pixels and what was predicted
    for them, [G, P]. power: the mean square of x_0.
    """

    times: tuple[int, ...]
    square: Array
    x_0: Tensor
    mean: Tensor
    power: float


def predict(
    schedule: Schedule, times: tuple[int, ...], x_0: Tensor, eps_theta: EpsTheta,
    noise: Callable[[Tensor], Tensor], advance: Callable[[int], None] = lambda num: None,
) -> Predictions:  # fmt: skip
    """Evaluate the network once at each time, at x_t ~ q(x_t | x_0) of a batch [B, C, H, W]."""
    squares, pixels, means = [], [], []
    stride = max(1, x_0.numel() // PIXELS)
    for t in times:
        time = torch.full((len(x_0),), t, device=x_0.device)
        x_t = q_sample(schedule, x_0, time, noise(x_0))
        eps, _ = split_v(eps_theta(x_t, time), x_t.shape[1])
        mean = predict_clipped_x_0(schedule, x_t.double(), time, eps.double())
        squares.append(float((mean - x_0).square().mean()))
        pixels.append(x_0.double().flatten()[::stride].cpu())
        means.append(mean.flatten()[::stride].cpu())
        advance(len(x_0))
    power = float(x_0.double().square().mean())
    return Predictions(times, np.array(squares), torch.stack(pixels), torch.stack(means), power)


def find_least_bits(schedule: Schedule, found: Predictions, steps: int) -> tuple[int, ...]:
    """Return the times, decreasing, of the chain of so many steps with the least bits.

    Raises ValueError where the grid has fewer times.
    """
    G = len(found.times)
    if not 1 <= steps <= G:
        raise ValueError(f"{steps} steps of {G} times")
    divergence, prior = divergences(schedule, found), priors(schedule, found)
    last = decoders(schedule, found)
    if steps == 1:
        return (found.times[int((last.diagonal() + prior).argmin())],)
    cost = last + divergence  # [first, second]
    before = [cost.argmin(0)]
    best = cost.min(0)
    for _ in range(steps - 2):
        longer = best[:, None] + divergence
        before.append(longer.argmin(0))
        best = longer.min(0)
    at = int((best + prior).argmin())
    way = [at]
    for step in reversed(before):
        way.append(int(step[way[-1]]))
    return tuple(found.times[i] for i in way)


def divergences(schedule: Schedule, found: Predictions) -> Array:
    """Return bits / dim of the step from the second to the first of two times; [G, G].

    Infinite unless the first is below the second.
    """
    alpha_bar = schedule.alpha_bar[list(found.times)].cpu().numpy()
    snr = alpha_bar / (1 - alpha_bar)
    bits = 0.5 * (snr[:, None] - snr[None, :]) * found.square[None, :] / math.log(2)
    return np.where(np.arange(len(snr))[:, None] < np.arange(len(snr))[None, :], bits, np.inf)


def priors(schedule: Schedule, found: Predictions) -> Array:
    """Return bits / dim of the prior, were each time the first; [G]."""
    alpha_bar = schedule.alpha_bar[list(found.times)].cpu().numpy()
    return 0.5 * (alpha_bar * (found.power - 1) - np.log1p(-alpha_bar)) / math.log(2)


def decoders(schedule: Schedule, found: Predictions) -> Array:
    """Return bits / dim of x_0 at the first of two times, which the second one precedes; [G, G].

    The variance is beta_tilde of the step from the second to the first; on the diagonal, of a chain
    of one step, it is beta.
    """
    alpha_bar = schedule.alpha_bar[list(found.times)].cpu().numpy()
    G = len(alpha_bar)
    bits = np.full((G, G), np.inf)
    for i, first in enumerate(alpha_bar):
        before = alpha_bar[i:]
        shares = (1 - before / first) / (1 - before)
        shares[0] = 1.0  # a chain of one step
        log_var = torch.from_numpy(np.log((1 - first) * shares))[:, None]
        p = Gaussian(found.mean[i].expand(len(before), -1), log_var)
        log_p = discretised_log_likelihood(found.x_0[i].expand_as(p.mean), p)
        bits[i, i:] = -log_p.mean(1).numpy() / math.log(2)
    return bits
