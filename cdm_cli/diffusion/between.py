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


def choose_rule(sampler: Sampler, stochasticity: Sequence[float] | None = None) -> Rule:
    """Return the name, as stores record it, of the rule by which `draw_between` draws.

    stochasticity: of each step of the sampler, where these are between DDIM and ancestral ones.
    """
    if stochasticity is not None:
        return "partly-shared-noise"
    match sampler:
        case "ancestral" | "sde-dpm-solver++":
            return "bridge"
        case "ddim" | "dpm-solver++":
            return "shared-noise"


def draw_between(
    schedule: Schedule, times: Collection[int], below: State, above: State, noise_at: NoiseAt,
    k: float, rho: float | None = None,
) -> dict[int, Tensor]:  # fmt: skip
    """Draw x_s for every s of times that lies between below, (a, x_a), and above, (b, x_b).

    Such an x_s is the truncated z_s of Section 3.2 where the chain steps over s. k: the
    stochasticity of the step from b to a, within 0..1; 0 draws nothing (`mix_between`). rho: the
    correlation of the noise of x_a and of x_b, by default that of a whole step.

    The time in the middle is drawn given both ends, then each half given its own (Lévy's
    construction). The way to s and the noise on it depend on a, b and s alone, so that no state
    changes with which others are asked for.
    """
    (a, x_a), (b, x_b) = below, above
    inside = [s for s in times if a < s < b]
    if not inside:
        return {}
    if k == 0:
        return mix_between(schedule, inside, below, above)
    middle = (a + b) // 2
    of_x_a, of_x_b, std = weigh_bridge(schedule, a, middle, b)
    rho_a = rho_b = rho
    if k < 1:
        rho = _correlate(schedule, a, b, k) if rho is None else rho
        of_x_a, of_x_b, std, rho_a, rho_b = _weigh_partly(schedule, a, middle, b, k, rho)
    x_s = of_x_a * x_a + of_x_b * x_b + std * noise_at(middle, x_b)
    return {
        **draw_between(schedule, inside, below, (middle, x_s), noise_at, k, rho_a),
        **({middle: x_s} if middle in inside else {}),
        **draw_between(schedule, inside, (middle, x_s), above, noise_at, k, rho_b),
    }


def mix_between(
    schedule: Schedule, times: Collection[int], below: State, above: State
) -> dict[int, Tensor]:
    """Return x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps for every s between.

    x_0 and eps are the pair that x_a and x_b were both made of. They are not solved for, which
    would divide by the distance of the ends: x_s is a weighted sum of x_a and x_b instead.
    """
    (a, x_a), (b, x_b) = below, above
    weights = {s: _weigh_mixture(schedule, a, s, b) for s in times if a < s < b}
    return {s: of_x_a * x_a + of_x_b * x_b for s, (of_x_a, of_x_b) in weights.items()}


def weigh_bridge(schedule: Schedule, a: int, s: int, b: int) -> tuple[float, float, float]:
    """Return what x_a and x_b are multiplied by in the mean of q(x_s | x_a, x_b), and its std."""
    alpha_bar_a, alpha_bar_s, alpha_bar_b = _alpha_bar(schedule, a, s, b)
    u_a, u_s, u_b = ((1 - it) / it for it in (alpha_bar_a, alpha_bar_s, alpha_bar_b))
    weight = (u_s - u_a) / (u_b - u_a)
    of_x_a = (1 - weight) * math.sqrt(alpha_bar_s / alpha_bar_a)
    of_x_b = weight * math.sqrt(alpha_bar_s / alpha_bar_b)
    return of_x_a, of_x_b, math.sqrt(alpha_bar_s * weight * (u_b - u_s))


def _weigh_mixture(schedule: Schedule, a: int, s: int, b: int) -> tuple[float, float]:
    angle_a, angle_s, angle_b = (
        math.atan2(math.sqrt(1 - it), math.sqrt(it)) for it in _alpha_bar(schedule, a, s, b)
    )
    whole = math.sin(angle_b - angle_a)
    return math.sin(angle_b - angle_s) / whole, math.sin(angle_s - angle_a) / whole


def _weigh_partly(
    schedule: Schedule, a: int, s: int, b: int, k: float, rho: float
) -> tuple[float, float, float, float, float]:
    """Return what x_a, x_b and new noise are multiplied by, and the rho of a to s and of s to b."""
    noise_a, noise_s, noise_b = (math.sqrt(1 - it) for it in _alpha_bar(schedule, a, s, b))
    of_x_a, of_x_b = _weigh_mixture(schedule, a, s, b)
    of_a, of_b, _ = weigh_bridge(schedule, a, s, b)
    of_x_a, of_x_b = (1 - k) * of_x_a + k * of_a, (1 - k) * of_x_b + k * of_b
    n_a, n_b = of_x_a * noise_a / noise_s, of_x_b * noise_b / noise_s
    lacking = max(1 - n_a**2 - n_b**2 - 2 * rho * n_a * n_b, 0.0)
    return of_x_a, of_x_b, noise_s * math.sqrt(lacking), n_a + rho * n_b, rho * n_a + n_b


def _correlate(schedule: Schedule, a: int, b: int, k: float) -> float:
    """Return exp(-k h), the correlation of the noise at both ends of a step; 0 where a = 0."""
    signal_a, signal_b = (
        math.sqrt(it / (1 - it)) if it < 1 else math.inf for it in _alpha_bar(schedule, a, b)
    )
    return (signal_b / signal_a) ** k


def _alpha_bar(schedule: Schedule, *times: int) -> list[float]:
    return schedule.alpha_bar[list(times)].tolist()
