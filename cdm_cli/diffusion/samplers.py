"""Ways down from x_T to x_0, each one published algorithm (paper, Section 2.1; 4.2; 4.4).

A sampler is a generator of (t, x_t) for t = T - 1, ..., 0. Its state at s is the truncated z_s
of Section 3.2; `between` has those of the times that it steps over. The schedule may be a
respaced one or any other; `eps_theta(x_t, t)` gets an index t within 1..T of that schedule,
int64 [B], and returns the network's raw output [B, C or 2C, H, W]. It is the caller who maps t to
what the network was trained on (`schedule.times`, or alpha_bar itself). `randn_like(x)` is the
only source of noise.

A step between DDIM and ancestral sampling has a stochasticity k within 0..1: with lambda =
log(alpha / sigma) and a step from t to t - 1 that reaches h in lambda, the noise of x_{t-1} keeps
exp(-k h) of that of x_t, the rest is drawn. k = 1 is the forward process (`ancestral`), k = 0
draws nothing (`ddim`); DDIM's eta (Song et al. 2021a, Eq. 16) is the root of (1 - exp(-2 k h))
over (1 - exp(-2 h)), which for short steps is that of k. So k means the same at any number of
steps: it is the square of tau in the SDEs of Xue et al. 2023 (SA-Solver, Eq. 4).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.diffusion.process import predict_eps, renoise
from cdm_cli.diffusion.reverse import Fraction, p_mean_log_var, predict_clipped_x_0, split_v
from cdm_cli.diffusion.schedules import Schedule
from cdm_cli.names import Sampler, Variance

EpsTheta = Callable[[Tensor, Tensor], Tensor]
RandnLike = Callable[[Tensor], Tensor]
Steps = Iterator[tuple[int, Tensor]]
Sample = Callable[[EpsTheta, Schedule, Tensor], Steps]

FARTHEST = 1.75  # times the distance to an evaluation behind: how far x_0 is extrapolated from it


def ancestral(
    eps_theta: EpsTheta,
    schedule: Schedule,
    x_T: Tensor,
    *,
    randn_like: RandnLike,
    variance: Variance = "small",
    fraction: Fraction = "centred",
    clip: bool = True,
) -> Steps:
    """Draw x_{t-1} ~ p_theta(x_{t-1} | x_t) (Ho et al. 2020, Algorithm 2); x_0 is the mean."""
    schedule, x_t = schedule.to(x_T.device), x_T
    for t in range(schedule.T, 0, -1):
        time = _repeat(t, x_t)
        mean, log_var = p_mean_log_var(
            schedule, x_t, time, eps_theta(x_t, time),
            variance=variance, fraction=fraction, clip=clip,
        )  # fmt: skip
        x_t = mean + (0.5 * log_var).exp() * randn_like(x_t) if t > 1 else mean
        yield t - 1, x_t


def ddim(
    eps_theta: EpsTheta,
    schedule: Schedule,
    x_T: Tensor,
    *,
    randn_like: RandnLike,
    stochasticity: Tensor | None = None,
    clip: bool = True,
) -> Steps:
    """DDIM (Song et al. 2021a, Eqs. 12 and 16), which draws no noise by default.

    stochasticity: within 0..1, float64 [T + 1, or more, as for a restart]; 1 everywhere is
    `ancestral`. Where x_0 was clipped, eps is solved again, so that the pair still explains x_t.
    """
    schedule, x_t = schedule.to(x_T.device), x_T
    drawn = _fresh_share(schedule, stochasticity)
    draws = bool((drawn > 0).any())
    for t in range(schedule.T, 0, -1):
        time = _repeat(t, x_t)
        x_0 = _x_0(eps_theta, schedule, x_t, time, clip)
        eps = predict_eps(schedule, x_t, time, x_0)
        alpha_bar_prev = schedule.alpha_bar[t - 1]
        var = (1 - alpha_bar_prev) * drawn[t]
        x_t = alpha_bar_prev.sqrt().to(x_t) * x_0 + (1 - alpha_bar_prev - var).sqrt().to(x_t) * eps
        if draws and t > 1:
            x_t = x_t + var.sqrt().to(x_t) * randn_like(x_t)
        yield t - 1, x_t


def _fresh_share(schedule: Schedule, stochasticity: Tensor | None) -> Tensor:
    """Return the fresh share of the variance of x_{t-1}'s noise, by t; float64 [T + 1]."""
    if stochasticity is None:
        return torch.zeros_like(schedule.alpha_bar)
    return F.pad(-torch.expm1(-2 * _decay(_lengths(schedule), stochasticity)), (1, 0))


def dpm_solver_pp(
    eps_theta: EpsTheta,
    schedule: Schedule,
    x_T: Tensor,
    *,
    randn_like: RandnLike | None = None,
    stochasticity: Tensor | None = None,
    clip: bool = True,
) -> Steps:
    """DPM-Solver++(2M), or, where noise is given, SDE-DPM-Solver++(2M) (Lu et al. 2022).

    arXiv 2211.01095, Algorithm 2 and its variant for diffusion SDEs, whose steps of first order
    are those of `ancestral` with the small variance. stochasticity: within 0..1, float64 [T + 1, or
    more, as for a restart], what lies between the two, 1 by default; 0 everywhere draws nothing.
    """
    schedule, x_t = schedule.to(x_T.device), x_T
    if stochasticity is None:
        stochasticity = torch.full_like(schedule.alpha_bar, float(randn_like is not None))
    of_x_t, of_x_0, of_noise, ahead, further = _solver_tables(schedule, stochasticity)
    draws = bool((stochasticity[2 : schedule.T + 1] > 0).any())
    x_0_before, x_0_earlier = x_T, x_T
    for t in range(schedule.T, 0, -1):
        x_0 = _x_0(eps_theta, schedule, x_t, _repeat(t, x_t), clip)
        extrapolated = x_0
        if t < schedule.T:
            extrapolated = x_0 + ahead[t].to(x_0) * (x_0 - x_0_before)
            extrapolated = extrapolated + further[t].to(x_0) * (x_0 - x_0_earlier)
        x_t = of_x_t[t].to(x_t) * x_t + of_x_0[t].to(x_t) * extrapolated
        if randn_like is not None and draws and t > 1:
            x_t = x_t + of_noise[t].to(x_t) * randn_like(x_t)
        x_0_before, x_0_earlier = x_0, x_0_before
        yield t - 1, x_t


def _solver_tables(schedule: Schedule, stochasticity: Tensor) -> tuple[Tensor, ...]:
    """Return what x_t, x_0, noise, and differences of x_0 are multiplied by; each [T + 1].

    lambda_t = log(alpha_t / sigma_t) is infinite at t = 0: there the exponential vanishes, the
    last step is of first order, and x_0 is the network's own prediction.
    """
    alpha, sigma = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
    h = _lengths(schedule)
    forgotten = _decay(h, stochasticity)
    of_x_t = sigma[:-1] / sigma[1:] * (-forgotten).exp()
    of_x_0 = -alpha[:-1] * torch.expm1(-(h + forgotten))
    of_noise = sigma[:-1] * (-torch.expm1(-2 * forgotten)).sqrt()
    tables = of_x_t, of_x_0, of_noise, *_extrapolation(h)
    return tuple(F.pad(table, (1, 0)) for table in tables)


def _lengths(schedule: Schedule) -> Tensor:
    """Return h of each step, its length in lambda; infinite for the last one. float64 [T]."""
    lambda_ = schedule.alpha_bar.sqrt().log() - (1 - schedule.alpha_bar).sqrt().log()
    return lambda_[:-1] - lambda_[1:]


def _decay(h: Tensor, stochasticity: Tensor) -> Tensor:
    """Return k h, [T]: a step keeps exp(-k h) of its noise. 0 where k = 0, even for infinite h."""
    k = stochasticity[1 : len(h) + 1].to(h)
    return torch.where(k > 0, k * h, 0.0)


def _extrapolation(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return h / 2 over the distance to the evaluation before, and to the one before that.

    h: [T], how far in lambda each step reaches. The time of a restart lies anywhere between the
    others: where the step before was too short to extrapolate from, two are taken together; a
    step that is too long for that is of first order. Of times that `spread_schedule` spreads
    evenly, none is too short (T / steps a whole number; cosine and linear).
    """
    one, two = F.pad(h[1:], (0, 1)), F.pad(h[2:], (0, 2))[: len(h)]  # 0: no evaluation
    enough = FARTHEST * one >= h
    together = ~enough & (one < two) & (FARTHEST * (one + two) >= h)
    return torch.where(enough, 0.5 * h / one, 0), torch.where(together, 0.5 * h / (one + two), 0)


def bind(
    sampler: Sampler,
    *,
    randn_like: RandnLike,
    variance: Variance = "small",
    fraction: Fraction = "centred",
    clip: bool = True,
    stochasticity: Sequence[float] | None = None,
) -> Sample:
    """Return the sampler of that name as a function of (eps_theta, schedule, x_T) alone.

    stochasticity: of each step, from x_T down, for ddim and dpm-solver++. Raises ValueError for
    the others, which have their own.
    """
    table = None
    if stochasticity is not None:
        if sampler not in ("ddim", "dpm-solver++"):
            raise ValueError(f"{sampler} has a stochasticity of its own")
        table = torch.tensor([0.0, *reversed(stochasticity)], dtype=torch.float64)
    match sampler:
        case "ancestral":
            return partial(
                ancestral, randn_like=randn_like, variance=variance, fraction=fraction, clip=clip
            )
        case "ddim":
            return partial(ddim, randn_like=randn_like, stochasticity=table, clip=clip)
        case "dpm-solver++":
            noise = None if table is None else randn_like
            return partial(dpm_solver_pp, randn_like=noise, stochasticity=table, clip=clip)
        case "sde-dpm-solver++":
            return partial(dpm_solver_pp, randn_like=randn_like, clip=clip)


def restart(
    sample: Sample,
    eps_theta: EpsTheta,
    schedule: Schedule,
    x_0: Tensor,
    r: int,
    *,
    randn_like: RandnLike,
) -> Steps:
    """Noise x_0 to time r of this schedule and sample again from there (Section 4.2).

    Yields (r, x_r), which costs no evaluation, then (t, x_t) for t = r - 1, ..., 0. Raises
    ValueError unless 1 <= r <= T.
    """
    if not 1 <= r <= schedule.T:
        raise ValueError(f"restart from {r} is outside 1..{schedule.T}")
    zero = _repeat(0, x_0)
    x_r = renoise(schedule, x_0, zero, zero + r, randn_like(x_0))
    yield r, x_r
    yield from sample(
        eps_theta, Schedule(schedule.alpha_bar[: r + 1], schedule.times[: r + 1]), x_r
    )


def _x_0(eps_theta: EpsTheta, schedule: Schedule, x_t: Tensor, time: Tensor, clip: bool) -> Tensor:
    eps, _ = split_v(eps_theta(x_t, time).to(x_t.dtype), x_t.shape[1])
    return predict_clipped_x_0(schedule, x_t, time, eps, clip)


def _repeat(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, device=x.device)
