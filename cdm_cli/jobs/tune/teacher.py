"""Times with which few steps end near to where many steps of the stage do: no judge is asked.

The teacher walks a fine grid of times by SDE-DPM-Solver++(2M). A pupil walks few of them along
the same Brownian path: V(SNR) = the noise of x_t times the root of SNR_t is a Brownian motion in
SNR = alpha_bar / (1 - alpha_bar), whatever x_0 is, so that the noise of a step from t to s is
(V_s - V_t) / sqrt(SNR_s - SNR_t). Each step of the teacher adds one increment, and a pupil's step
takes all of those that it steps over (Lévy: increments over disjoint intervals are independent).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cdm_cli.diffusion.samplers import EpsTheta, bind
from cdm_cli.diffusion.schedules import Schedule, respace, trailing_times
from cdm_cli.jobs.tune.ways import Way, find_times, make_even_way, place_times, vary

EVENLY = 48  # times of the grid in t, and as many in where they lie
FIRST, LAST = 0.5, 0.1  # by how much times are shifted, at first and in the end

EpsOf = Callable[[Schedule], EpsTheta]


def choose_teacher_times(schedule: Schedule) -> tuple[int, ...]:
    """Return the times, ascending, that the teacher walks: spread in t, and in where they lie."""
    T = schedule.T
    table = place_times(schedule)
    in_t = trailing_times(T, min(T, EVENLY)).tolist()
    wanted = np.linspace(table[-1], table[0], min(T, EVENLY))
    return tuple(sorted({1, *in_t, *find_times(schedule, wanted)}))


@dataclass(frozen=True)
class NoisePath:
    """One Brownian path for each sample of a batch, at the times of a grid.

    V: [G, B, C, H, W], snr: [G], both by descending time, so that SNR ascends.
    """

    times: tuple[int, ...]
    snr: Tensor
    V: Tensor

    @classmethod
    def draw(
        cls,
        schedule: Schedule,
        times: Sequence[int],
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor],
    ) -> "NoisePath":
        """Draw a path at these times for samples like x."""
        down = tuple(sorted(times, reverse=True))
        alpha_bar = schedule.alpha_bar[list(down)]
        snr = alpha_bar / (1 - alpha_bar)
        steps = torch.diff(snr, prepend=snr.new_zeros(1)).sqrt()
        V = torch.stack([float(step) * randn_like(x) for step in steps]).cumsum(0)
        return cls(down, snr, V)

    def start(self, t: int) -> Tensor:
        """Return the noise of x_t, a standard normal."""
        at = self.times.index(t)
        return self.V[at] / float(self.snr[at].sqrt())

    def draw_step_noise(self, t: int, s: int) -> Tensor:
        """Return the noise of a step from t to s < t, a standard normal independent of what was."""
        at, to = self.times.index(t), self.times.index(s)
        return (self.V[to] - self.V[at]) / float((self.snr[to] - self.snr[at]).sqrt())


def walk_path(schedule: Schedule, eps_of: EpsOf, way: Way, path: NoisePath) -> Tensor:
    """Return x_0 within [-1, 1] where a way ends that follows the path, whose times it has."""
    few = respace(schedule, torch.tensor(sorted(way.times)))
    noises = iter([path.draw_step_noise(t, s) for t, s in pairwise(way.times)])
    sample = bind(way.sampler, randn_like=lambda x: next(noises), stochasticity=way.stochasticity)
    x = path.start(way.times[0])
    for _, x in sample(eps_of(few), few, x):  # noqa: B007, B020
        pass
    return x.clamp(-1, 1)


def find_nearest(
    schedule: Schedule, times: Sequence[int], begin: Sequence[Way],
    distance: Callable[[Way], float], tries: int, rng: np.random.Generator,
) -> Way:  # fmt: skip
    """Return the way that ends nearest to the teacher's: one of `begin`, or a varied one.

    times: the grid on which ways lie. distance: from where a way on it ends to where the
    teacher's ends. tries: how often the best way so far is varied, by turns in a direction that is
    drawn, and again in it after a success, in the opposite one after a failure.
    """
    score, _, way = min((distance(way), number, way) for number, way in enumerate(begin))
    shift = np.zeros(8)
    for number in range(tries):
        size = FIRST * (LAST / FIRST) ** (number / max(1, tries - 1))
        fresh = np.concatenate([size * rng.normal(size=5), np.zeros(3)])
        shift = fresh if number % 2 == 0 else shift
        tried = move_onto(times, vary(way, schedule, shift))
        found = distance(tried) if tried != way else score
        if found < score:
            score, way = found, tried
        else:
            shift = -shift
    return way


def move_onto(times: Sequence[int], way: Way) -> Way:
    """Return the way with each time moved to the nearest of a grid that is still free."""
    there, taken = np.asarray(sorted(times, reverse=True)), list[int]()
    for left, t in zip(range(len(way.times), 0, -1), way.times, strict=True):
        free = there[there < taken[-1]] if taken else there
        free = free[: len(free) - left + 1]  # room for those that follow
        taken.append(int(free[np.abs(free - t).argmin()]))
    return make_even_way(taken, way.stochasticity[0], way.sampler)
