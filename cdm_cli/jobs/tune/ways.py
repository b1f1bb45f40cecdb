"""Few times with a stochasticity for each step: ways down from x_T, and how they are varied.

Times are those of training; the first is the highest, x is pure noise there. Where a time lies is
asinh(alpha / sigma): for little noise that is lambda + log 2 (lambda = log(alpha / sigma), what
steps are long or short in), and at T it ends at 0, where lambda runs away to -infinity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cdm_cli.diffusion.schedules import Schedule

Solver = Literal["ddim", "dpm-solver++"]
Shape = Literal["even", "square", "sine"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A way down: times, decreasing within 1..T, the stochasticity of the step from each, a solver.

    ddim is of first order, dpm-solver++ of second.
    """

    times: tuple[int, ...]
    stochasticity: tuple[float, ...]
    sampler: Solver


def make_even_way(times: Sequence[int], k: float, sampler: Solver = "dpm-solver++") -> Way:
    """Return a way with the same stochasticity everywhere."""
    ordered = tuple(sorted(times, reverse=True))
    return Way(ordered, (k,) * len(ordered), sampler)


def place_times(schedule: Schedule) -> Array:
    """Return where t = 1..T lie, asinh(alpha / sigma), decreasing to 0; float64 [T]."""
    alpha_bar = schedule.alpha_bar[1:]
    return (alpha_bar / (1 - alpha_bar)).sqrt().asinh().cpu().numpy()


def find_times(schedule: Schedule, wanted: Array) -> tuple[int, ...]:
    """Return the times nearest to some places, decreasing and each one once."""
    table = place_times(schedule)
    found = 1 + np.abs(table[None, :] - np.sort(wanted)[:, None]).argmin(1)
    return _make_distinct(found.tolist(), len(table))


def shape_times(T: int, steps: int, first: float, shape: Shape) -> tuple[int, ...]:
    """Return times from first T down, first T f(i / steps), decreasing and each one once.

    even: f(u) = u; square: u^2, the quadratic times of Song et al. 2021a (D.2); sine:
    sin(pi u / 2)^2, which is even in the middle and short at both ends.
    """
    u = np.arange(steps, 0, -1) / steps
    f = {"even": u, "square": u**2, "sine": np.sin(np.pi * u / 2) ** 2}[shape]
    return _make_distinct(np.ceil(first * T * f - 1e-9).astype(int).tolist(), T)


def _make_distinct(wanted: Sequence[int], T: int) -> tuple[int, ...]:
    """Return decreasing times within 1..T near those that are wanted, each one once."""
    times: list[int] = []
    for left, t in zip(range(len(wanted), 0, -1), wanted, strict=True):
        highest = times[-1] - 1 if times else T
        times.append(max(min(t, highest), left))
    return tuple(times)


def vary(way: Way, schedule: Schedule, shift: Array) -> Way:
    """Return a way near by: its times are shifted, its noise as well, smoothly along it.

    shift: [8], five weights for the places of the times, three for the stochasticity.
    """
    u = np.linspace(0, 1, len(way.times)) if len(way.times) > 1 else np.full(1, 0.5)
    waves = [np.sin(n * np.pi * u) for n in (1, 2, 3)]
    shapes = np.stack([1 - u, u, *waves])
    at = place_times(schedule)[np.asarray(way.times) - 1] + shift[:5] @ shapes
    k = np.asarray(way.stochasticity) + shift[5:] @ shapes[:3]
    return replace(
        way,
        times=find_times(schedule, at),
        stochasticity=tuple(np.clip(k, 0, 1).round(4).tolist()),
    )
