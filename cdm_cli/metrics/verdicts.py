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
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdm_cli.metrics.jackknife import Array, Estimate, pseudo_values, variance

LEVEL = 0.05
ALL_SIGNS = 12  # up to 4096 patterns are enumerated; of more, as many are drawn
EQUAL = 1e-9  # relative to the number: closer than this, rounding tells the points apart

BEATEN = "beaten"  # in a race (best.py)

Standing = Literal["best", "as good as the best", "worse"]


@dataclass(frozen=True)
class Verdict:
    """What is certain about one point.

    "best": all others are worse. "as good as the best": one of several that nothing tells apart.
    difference: how much higher it is than the lowest, both less their biases, and its standard
    error. p: the lowest level at which it would be called worse; 1 for the lowest. lowest: whether
    the others are compared with it.
    """

    standing: Standing
    difference: float
    error: float
    p: float
    lowest: bool = False

    def __str__(self) -> str:
        return put_in_words(self.standing, self.difference, self.error)


def put_in_words(standing: str, difference: float, error: float) -> str:
    """Return a verdict in words; of one that is worse, better or beaten, by how much."""
    by = f" by {abs(difference):.2g} ± {error:.2g}"
    return f"{standing}{by}" if standing in ("worse", "better", BEATEN) else standing


def verdicts_on(
    estimates: Sequence[Estimate], *, level: float = LEVEL, highest: bool = False
) -> list[Verdict]:
    """Return a verdict on each of several numbers, as `verdicts` does.

    Their values without two groups are used where all of them have these. Raises ValueError for
    different numbers of groups.
    """
    values = [found.value for found in estimates]
    without = np.array([found.without for found in estimates])
    two = [found.without_two for found in estimates]
    return verdicts(values, without, two if all(two) else (), level=level, highest=highest)


def verdicts(
    values: ArrayLike,
    without: ArrayLike,
    without_two: ArrayLike = (),
    *,
    level: float = LEVEL,
    highest: bool = False,
) -> list[Verdict]:
    """Return a verdict on each of P points; that any is wrong has a probability of `level` at most.

    values: [P]; without: [P, G], leave-one-out values over the same groups, so that what the
    samples of the points share is cancelled (independent samples may stand beside them);
    without_two: [P, G], for the errors alone. highest: whether higher is better.
    Raises ValueError for shapes that do not fit.
    """
    value, left, two = _arrays(values, without, without_two)
    if highest:
        value, left, two = -value, -left, -two
    y = pseudo_values(value, left)
    best, p = int(y.mean(1).argmin()), _levels(y, level)
    gap = y.mean(1) - y[best].mean()
    error = variance(value - value[best], left - left[best], two - two[best] if two.size else ())
    alone = (p > level).sum() == 1
    return [
        Verdict(_standing(p[i] <= level, alone), float(-gap[i] if highest else gap[i]),
                float(error[i] ** 0.5), float(p[i]), i == best)
        for i in range(len(y))
    ]  # fmt: skip


def _arrays(values: ArrayLike, without: ArrayLike, without_two: ArrayLike) -> list[Array]:
    arrays = [np.asarray(given, np.float64) for given in (values, without, without_two)]
    shape, *others = (array.shape for array in (arrays[1], arrays[0], arrays[2]))
    fits = len(shape) == 2 and shape[1] > 1 and others[0] == shape[:1]
    if not fits or (arrays[2].size and others[1] != shape):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"values, without, without_two {shapes}: expected [P], [P, G], [P, G]")
    return arrays


def _standing(worse: bool, alone: bool) -> Standing:
    return "worse" if worse else "best" if alone else "as good as the best"


def _levels(y: Array, level: float) -> Array:
    """Return the lowest level at which each of y [P, G] would be called worse, [P].

    It is 1 for the lowest. Points are set aside one after another, so no later one has a lower
    level than an earlier one.
    """
    flips, p, here, last = signs(y.shape[1]), np.ones(len(y)), list(range(len(y))), 0.0
    while len(here) > 1:
        t = np.where(_equals_lowest(y[here].mean(1)), 0.0, against_lowest(y[here]))
        null = against_lowest(flips[:, None, :] * y[here]).max(-1)
        for i, mine in zip(here, t, strict=True):
            p[i] = max(last, float((null >= mine * (1 - EQUAL)).mean()))
        worst = here[int(t.argmax())]
        if p[worst] > level:
            break
        last = p[worst]
        here.remove(worst)
    p[int(y.mean(1).argmin())] = 1.0
    return p


def _equals_lowest(means: Array) -> NDArray[np.bool_]:
    """Return which points equal the lowest up to rounding, bool [P]."""
    return means - means.min() <= EQUAL * np.abs(means).max()


def against_lowest(y: Array) -> Array:
    """Return Student's t of each point less the one of the lowest mean, [..., P] of [..., P, G]."""
    lowest = y.mean(-1).argmin(-1)[..., None, None]
    gap = y - np.take_along_axis(y, lowest, -2)
    mean, error = gap.mean(-1), gap.std(-1, ddof=1) / y.shape[-1] ** 0.5
    t: Array = np.zeros(mean.shape)
    t[mean > 0] = np.inf
    np.divide(mean, error, out=t, where=error > 0)
    return t


def signs(G: int) -> NDArray[np.float64]:
    """Return every pattern of G signs, [2^G, G], the first all +1; at most 4096 of them."""
    if G <= ALL_SIGNS:
        minus = (np.arange(2**G)[:, None] >> np.arange(G) & 1) == 1
    else:
        minus = np.random.default_rng(0).random((2**ALL_SIGNS, G)) < 0.5
        minus[0] = False
    return np.where(minus, -1.0, 1.0)


def least_level(G: int) -> float:
    """Return the least p that two numbers of G groups can have: both signs of what was found."""
    return 2 / min(2**G, 2**ALL_SIGNS)
