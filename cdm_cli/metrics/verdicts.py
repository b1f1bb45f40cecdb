"""Which of many points is the best, said of all of them at once, with one chance to be wrong.

The lowest of thirteen FIDs is lower than the others by luck, too. The points are compared with
the lowest by paired Student statistics over the groups of the jackknife, and the largest of them
is held against what it would be if nothing but noise told the points apart: the groups of all
points together change sign, in all 2^G ways. That keeps whatever the points share, and needs no
table (Westfall & Young 1993; Winkler et al. 2014). Where the farthest point is certain to be worse
it is set aside, and the others are compared anew, until none is: the model confidence set of
Hansen, Lunde & Nason (2011), which holds all of the best points with a probability of 1 - level.

The real images are taken as they are: a verdict is about the distance to these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdm_cli.metrics.jackknife import Array, Estimate, compute_pseudo_values, variance

LEVEL = 0.05
ALL_SIGNS = 12  # up to 4096 patterns are enumerated; of more, as many are drawn
EQUAL = 1e-9  # relative to the number: closer than this, rounding tells the points apart

BEATEN = "beaten"  # in a race (best.py)

Standing = Literal["best", "as good as the best", "worse"]


@dataclass(frozen=True)
class Gap:
    """How one point compares with the lowest of several.

    difference: how much higher it is, both less their biases, and its standard error. p: the lowest
    level at which it would be called worse, or beaten; 1 for the lowest. lowest: whether it is that
    one.
    """

    difference: float
    error: float
    p: float
    lowest: bool


@dataclass(frozen=True)
class Verdict(Gap):
    """What is certain about one point.

    "best": all others are worse. "as good as the best": one of several that nothing tells apart.
    """

    standing: Standing

    def __str__(self) -> str:
        return put_in_words(self.standing, self.difference, self.error)


def put_in_words(standing: str, difference: float, error: float) -> str:
    """Return a verdict in words; of one that is worse, better or beaten, by how much."""
    by = f" by {abs(difference):.2g} ± {error:.2g}"
    return f"{standing}{by}" if standing in ("worse", "better", BEATEN) else standing


class Gaps(NamedTuple):
    """How much higher each of P numbers is than the lowest, all less their biases.

    y: pseudo-values [P, G]. lowest: the place of the lowest. gap: [P], and error: its standard
    error, [P].
    """

    y: Array
    lowest: int
    gap: Array
    error: Array


def measure_gaps(estimates: Sequence[Estimate], *, highest: bool = False) -> Gaps:
    """Compare numbers of the same groups with the lowest; highest: with the highest, all negated.

    What the samples share cancels. Values without two groups are used where all numbers have them.
    Raises ValueError for different numbers of groups, and for fewer than two.
    """
    sign = -1 if highest else 1
    value = sign * np.array([one.value for one in estimates])
    without = sign * np.array([one.without for one in estimates])
    if without.shape[1] < 2:
        raise ValueError(f"{without.shape[1]} groups, expected two at least")
    y = compute_pseudo_values(value, without)
    lowest = int(y.mean(1).argmin())
    two: Array = np.zeros((len(y), 0))
    if all(one.without_two for one in estimates):
        two = sign * np.array([one.without_two for one in estimates])
    squares = variance(value - value[lowest], without - without[lowest], two - two[lowest])
    return Gaps(y, lowest, y.mean(1) - y[lowest].mean(), squares**0.5)


def reach_verdicts(
    estimates: Sequence[Estimate], *, level: float = LEVEL, highest: bool = False
) -> list[Verdict]:
    """Return a verdict on each of several numbers.

    That any of these is wrong has a probability of `level` at most. Numbers of independent samples
    may stand beside those that share samples. highest: whether higher is better.
    Raises ValueError as `measure_gaps` does.
    """
    y, best, gap, error = measure_gaps(estimates, highest=highest)
    p, gap = _find_levels(y, level), -gap if highest else gap
    alone = (p > level).sum() == 1
    return [
        Verdict(
            float(gap[i]),
            float(error[i]),
            float(p[i]),
            i == best,
            _name_standing(p[i] <= level, alone),
        )
        for i in range(len(y))
    ]


def find_least_told(estimates: Sequence[Estimate], *, level: float = LEVEL) -> float:
    """Return about how much higher than the lowest a point has to be found to be called worse.

    estimates: at least two that nothing tells apart. It is the statistic that one has to reach
    among these, times the error of the one in the middle, which falls as the root of the number of
    images. Of points with the same numbers one counts; 0 where all have the same. Raises ValueError
    as `measure_gaps` does.
    """
    y, lowest, _, error = measure_gaps([*dict.fromkeys(estimates)])
    if len(y) == 1:
        return 0.0
    null = compare_with_lowest(list_signs(y.shape[1])[:, None, :] * y).max(-1)
    least = np.quantile(null, 1 - level, method="higher")
    return float(least * np.median(np.delete(error, lowest)))


def _name_standing(worse: bool, alone: bool) -> Standing:
    return "worse" if worse else "best" if alone else "as good as the best"


def _find_levels(y: Array, level: float) -> Array:
    """Return the lowest level at which each of y [P, G] would be called worse, [P].

    It is 1 for the lowest. Points are set aside one after another, so no later one has a lower
    level than an earlier one.
    """
    flips, p, here, last = list_signs(y.shape[1]), np.ones(len(y)), list(range(len(y))), 0.0
    while len(here) > 1:
        above = y[here].mean(1) - y[here].mean(1).min()
        equal = above <= EQUAL * np.abs(y[here].mean(1)).max()
        t = np.where(equal, 0.0, compare_with_lowest(y[here]))
        null = compare_with_lowest(flips[:, None, :] * y[here]).max(-1)
        for i, mine in zip(here, t, strict=True):
            p[i] = max(last, float((null >= mine * (1 - EQUAL)).mean()))
        worst = here[int(t.argmax())]
        if p[worst] > level:
            break
        last = p[worst]
        here.remove(worst)
    p[int(y.mean(1).argmin())] = 1.0
    return p


def compare_with_lowest(y: Array) -> Array:
    """Return Student's t of each point less the one of the lowest mean, [..., P] of [..., P, G]."""
    lowest = y.mean(-1).argmin(-1)[..., None, None]
    gap = y - np.take_along_axis(y, lowest, -2)
    mean, error = gap.mean(-1), gap.std(-1, ddof=1) / y.shape[-1] ** 0.5
    t: Array = np.zeros(mean.shape)
    t[mean > 0] = np.inf
    np.divide(mean, error, out=t, where=error > 0)
    return t


def list_signs(G: int) -> NDArray[np.float64]:
    """Return every pattern of G signs, [2^G, G], the first all +1; at most 4096 of them."""
    if G <= ALL_SIGNS:
        minus = (np.arange(2**G)[:, None] >> np.arange(G) & 1) == 1
    else:
        minus = np.random.default_rng(0).random((2**ALL_SIGNS, G)) < 0.5
        minus[0] = False
    return np.where(minus, -1.0, 1.0)


def find_least_level(G: int) -> float:
    """Return the least p that two numbers of G groups can have: both signs of what was found."""
    return 2 / min(2**G, 2**ALL_SIGNS)
