"""Which of many points may be the best: less than how all of them stand, and certain sooner.

To call any of thirteen points worse, with one chance of 5 % to be wrong in any of it, all pairs
count (verdicts.py). To find the best, only the best must not be lost. Each point is held against
all others by paired Student statistics over the groups of the jackknife, and leaves where the
largest is larger than it would be if all were equal to it: the groups of all points together
change sign. One point is the best, so each is tested at the whole level (multiple comparisons with
the best: Hsu 1981; Hsu 1984); of several that are equal, each stays with the same probability.

What is certain of a point that leaves is that another one is as good or better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdm_cli.metrics.jackknife import Array, Estimate
from cdm_cli.metrics.verdicts import EQUAL, LEVEL, Gap, list_signs, measure_gaps


@dataclass(frozen=True)
class Contender(Gap):
    """How one point stands among those that may be the best.

    beaten: whether another one is certain to be as good or better.
    """

    beaten: bool


def rank_contenders(estimates: Sequence[Estimate], *, level: float = LEVEL) -> list[Contender]:
    """Return how each of P points stands, by numbers of which less is better.

    The best is beaten with a probability of `level` at most. Raises ValueError as
    `measure_gaps` does.
    """
    y, best, gap, error = measure_gaps(estimates)
    p = find_levels(y)
    return [
        Contender(float(gap[i]), float(error[i]), float(p[i]), i == best, bool(p[i] <= level))
        for i in range(len(y))
    ]


def find_levels(y: Array) -> Array:
    """Return at which level each of y [P, G] is beaten, [P]; 1 for the lowest."""
    means, flips = y.mean(1), list_signs(y.shape[1])
    flipped = flips @ y.T / y.shape[1]
    close = EQUAL * np.abs(means).max()
    p = np.ones(len(y))
    for i in range(len(y)):
        if (means[i] - means > close).any():
            t = _compare_with_others(i, y, flipped)
            largest = t[0, means[i] - np.delete(means, i) > close].max()
            p[i] = (t.max(1) >= largest * (1 - EQUAL)).mean()
    return p


def _compare_with_others(i: int, y: Array, flipped: Array) -> Array:
    """Return Student's t of point i less each other, by each pattern of signs, [S, P - 1].

    flipped: the means of y [P, G] by pattern, [S, P], the first as they are.
    """
    G = y.shape[1]
    gap = np.delete(flipped[:, [i]] - flipped, i, 1)
    squares = np.delete(((y[i] - y) ** 2).mean(1), i)
    error = np.sqrt((squares - gap**2).clip(0) / (G - 1))
    t = np.where(gap > 0, np.inf, np.where(gap < 0, -np.inf, 0.0))
    np.divide(gap, error, out=t, where=error > 0)
    return t
