"""States at times that a sampler steps over, from the two states around them; no evaluation.

A sampler that draws noise walks a chain whose neighbours x_a and x_b, a < b, are related as the
forward process relates them, which is Markov: with u_t = (1 - alpha_bar_t) / alpha_bar_t,
x_t / sqrt(alpha_bar_t) is x_0 plus a Brownian motion at u_t. So q(x_s | x_a, x_b) is Gaussian, and
x_0 has no part in it. Below the last step (a = 0) it is q(x_s | x_b, x_0) at the predicted x_0,
which is what an ancestral step draws from.

The neighbours of DDIM and of DPM-Solver++ share their noise: both are sqrt(alpha_bar) x_0 +
sqrt(1 - alpha_bar) eps with the x_0 and eps of the step, and so is what lies between them.

Where a step draws a part of its noise (`samplers`, stochasticity k), its two ends have noise n_a
and n_b of correlation rho = exp(-k h), and x_s is drawn around the mixture (1 - k) times the one
of shared noise plus k times the one of the bridge, with what its variance still lacks. So
sqrt(alpha_bar_s) x_0 is in it in full, its noise has variance 1 - alpha_bar_s exactly, and k = 0
and k = 1 are the two above.

Times are those of `schedule`, 0 <= a < s < b <= T; states are [B, C, H, W].
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from torch import Tensor

from cdm_cli.diffusion.schedules import Schedule
from cdm_cli.names import Sampler

NoiseAt = Callable[[int, Tensor], Tensor]
"""(s, x) -> standard normals like x, which belong to the time s."""

State = tuple[int, Tensor]
Rule = Literal["bridge", "shared-noise", "partly-shared-noise"]


def rule_of(sampler: Sampler, stochasticity: Sequence[float] | None = None) -> Rule:
    """Return the rule by which states between two steps of a sampler are drawn.

    stochasticity: of each of its steps, where these are between DDIM and ancestral ones.
    """
    if stochasticity is not None:
        return "partly-shared-noise"
    match sampler:
        case "ancestral" | "sde-dpm-solver++":
            return "bridge"
        case "ddim" | "dpm-solver++":
            return "shared-noise"


def states_between(
    rule: Rule, schedule: Schedule, times: Collection[int], below: State, above: State,
    noise_at: NoiseAt, k: float = 0.0,
) -> dict[int, Tensor]:  # fmt: skip
    """Return x_s for every s of times that lies between below, (a, x_a), and above, (b, x_b).

    k: the stochasticity of the step from b to a, for the rule of partly drawn noise.
    """
    match rule:
        case "bridge":
            return draw_between(schedule, times, below, above, noise_at)
        case "shared-noise":
            return mix_between(schedule, times, below, above)
        case "partly-shared-noise":
            if k == 1:
                return draw_between(schedule, times, below, above, noise_at)
            if k == 0:
                return mix_between(schedule, times, below, above)
            return draw_partly(schedule, times, below, above, noise_at, k)


def bridge(schedule: Schedule, s: int, below: State, above: State) -> tuple[Tensor, float]:
    """Return mean and standard deviation of q(x_s | x_a, x_b)."""
    (a, x_a), (b, x_b) = below, above
    of_x_a, of_x_b, std = _weights_of_bridge(schedule, a, s, b)
    return of_x_a * x_a + of_x_b * x_b, std


def _weights_of_bridge(schedule: Schedule, a: int, s: int, b: int) -> tuple[float, float, float]:
    alpha_bar_a, alpha_bar_s, alpha_bar_b = _alpha_bar(schedule, a, s, b)
    u_a, u_s, u_b = ((1 - it) / it for it in (alpha_bar_a, alpha_bar_s, alpha_bar_b))
    weight = (u_s - u_a) / (u_b - u_a)
    of_x_a = (1 - weight) * math.sqrt(alpha_bar_s / alpha_bar_a)
    of_x_b = weight * math.sqrt(alpha_bar_s / alpha_bar_b)
    return of_x_a, of_x_b, math.sqrt(alpha_bar_s * weight * (u_b - u_s))


def draw_between(
    schedule: Schedule, times: Collection[int], below: State, above: State, noise_at: NoiseAt
) -> dict[int, Tensor]:
    """Draw x_s for every s of times that lies between, jointly from q(. | x_a, x_b).

    The time in the middle is drawn given both ends, then each half given its own (Lévy's
    construction). The way to s and the noise on it depend on a, b and s alone, so that no state
    changes with which others are asked for.
    """
    (a, _), (b, x_b) = below, above
    inside = [s for s in times if a < s < b]
    if not inside:
        return {}
    middle = (a + b) // 2
    mean, std = bridge(schedule, middle, below, above)
    x_s = mean + std * noise_at(middle, x_b)
    return {
        **draw_between(schedule, inside, below, (middle, x_s), noise_at),
        **({middle: x_s} if middle in inside else {}),
        **draw_between(schedule, inside, (middle, x_s), above, noise_at),
    }


def mix_between(
    schedule: Schedule, times: Collection[int], below: State, above: State
) -> dict[int, Tensor]:
    """Return x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps for every s between.

    x_0 and eps are the pair that x_a and x_b were both made of. They are not solved for, which
    would divide by the distance of the ends: x_s is a weighted sum of x_a and x_b instead.
    """
    a, b = below[0], above[0]
    return {s: _mixture(schedule, s, below, above) for s in times if a < s < b}


def _mixture(schedule: Schedule, s: int, below: State, above: State) -> Tensor:
    (a, x_a), (b, x_b) = below, above
    of_x_a, of_x_b = _weights_of_mixture(schedule, a, s, b)
    return of_x_a * x_a + of_x_b * x_b


def _weights_of_mixture(schedule: Schedule, a: int, s: int, b: int) -> tuple[float, float]:
    angle_a, angle_s, angle_b = (
        math.atan2(math.sqrt(1 - it), math.sqrt(it)) for it in _alpha_bar(schedule, a, s, b)
    )
    whole = math.sin(angle_b - angle_a)
    return math.sin(angle_b - angle_s) / whole, math.sin(angle_s - angle_a) / whole


def draw_partly(
    schedule: Schedule, times: Collection[int], below: State, above: State, noise_at: NoiseAt,
    k: float, rho: float | None = None,
) -> dict[int, Tensor]:  # fmt: skip
    """Draw x_s for every s of times that lies between two states whose noise is partly the same.

    k: the stochasticity of the step, within 0..1. rho: the correlation of the noise of x_a and of
    x_b, of a whole step by default. The way to s is that of `draw_between`.
    """
    (a, _), (b, x_b) = below, above
    inside = [s for s in times if a < s < b]
    if not inside:
        return {}
    middle = (a + b) // 2
    noise = [math.sqrt(1 - it) for it in _alpha_bar(schedule, a, middle, b)]
    rho = _correlation(schedule, a, b, k) if rho is None else rho
    of_x_a, of_x_b = _weights_of_mixture(schedule, a, middle, b)
    of_a, of_b, _ = _weights_of_bridge(schedule, a, middle, b)
    of_x_a, of_x_b = (1 - k) * of_x_a + k * of_a, (1 - k) * of_x_b + k * of_b
    n_a, n_b = of_x_a * noise[0] / noise[1], of_x_b * noise[2] / noise[1]
    lacking = max(1 - n_a**2 - n_b**2 - 2 * rho * n_a * n_b, 0.0)
    x_s = of_x_a * below[1] + of_x_b * x_b + noise[1] * math.sqrt(lacking) * noise_at(middle, x_b)
    half = middle, x_s
    return {
        **draw_partly(schedule, inside, below, half, noise_at, k, n_a + rho * n_b),
        **({middle: x_s} if middle in inside else {}),
        **draw_partly(schedule, inside, half, above, noise_at, k, rho * n_a + n_b),
    }


def _correlation(schedule: Schedule, a: int, b: int, k: float) -> float:
    """Return exp(-k h), the correlation of the noise at both ends of a step; 0 where a = 0."""
    alpha_bar_a, alpha_bar_b = _alpha_bar(schedule, a, b)
    signal_a, signal_b = (math.sqrt(it / (1 - it)) if it < 1 else math.inf
                          for it in (alpha_bar_a, alpha_bar_b))  # fmt: skip
    return (signal_b / signal_a) ** k


def _alpha_bar(schedule: Schedule, *times: int) -> list[float]:
    return schedule.alpha_bar[list(times)].tolist()
