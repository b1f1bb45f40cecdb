"""How sure a number is, from what it would be without some of its samples (Tukey 1958).

The samples are dealt into G groups (order.py). A jackknife leaves out one group at a time: no
sample counts twice, so unlike a bootstrap it needs sums over the groups alone, and memory stays
flat in the number of samples.

For a number that is curved in its samples, as FID is, the spread of these values overstates the
error: the part that two groups make together counts twice (Efron & Stein 1981), which is up to
1.4 times the error where most of an FID is bias. What is left without each two neighbouring
groups measures that part, and it is taken off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_GROUPS = 10
LEAST = 4  # groups, for values without two of them

Array = NDArray[np.float64]


class MeanAndStd(NamedTuple):
    """A mean, and a standard deviation: over splits or subsets, or of the mean itself.

    IS and KID have the first; accuracies and scores of neighbours the second, a standard error.
    """

    mean: float
    std: float


def measure_share(hits: float, num: int) -> MeanAndStd:
    """Return which share of num samples the hits are, with its binomial standard error; 0 of 0."""
    share = hits / max(num, 1)
    return MeanAndStd(share, (share * (1 - share) / max(num, 1)) ** 0.5)


@dataclass(frozen=True)
class Estimate:
    """A number, and what it would be without some of its samples; empty where not known.

    without: [G], without each of the groups. without_two: [G], without groups g and g + 1,
    the last being without the last and the first.
    """

    value: float
    without: tuple[float, ...] = ()
    without_two: tuple[float, ...] = ()

    @cached_property
    def error(self) -> float | None:
        """The standard error of the jackknife, without what it counts twice."""
        if not self.without:
            return None
        return float(variance(self.value, self.without, self.without_two) ** 0.5)

    @property
    def corrected(self) -> float | None:
        """The number minus the jackknife estimate of its bias of order 1 / N (Quenouille 1956)."""
        return (
            float(compute_pseudo_values(self.value, self.without).mean()) if self.without else None
        )

    def minus(self, other: "Estimate") -> "Estimate":
        """Return the paired difference, of two numbers of the same groups: what they share cancels.

        Raises ValueError for another number of groups.
        """
        pairs = zip(self.without, other.without, strict=True)
        two = zip(self.without_two, other.without_two, strict=False)
        return Estimate(
            self.value - other.value,
            tuple(mine - theirs for mine, theirs in pairs),
            tuple(mine - theirs for mine, theirs in two),
        )


def estimate(
    value: float,
    without: Callable[[tuple[int, ...]], float],
    sizes: Sequence[int],
    *,
    pairs: bool = True,
) -> Estimate:
    """Return a number with what it is without each group of its samples.

    without: returns the number without the groups whose places it is given. sizes: how many
    samples each of G groups has. From G = 4 on each two neighbouring groups are left out as well,
    unless pairs is False. Nothing is where that would leave fewer than two samples.
    """
    G = len(sizes)
    two = [(g, (g + 1) % G) for g in range(G)] if G >= LEAST else []
    if G < 2 or sum(sizes) - max(sizes) * (2 if two else 1) < 2:
        return Estimate(value)
    return Estimate(
        value,
        tuple(without((g,)) for g in range(G)),
        tuple(without(pair) for pair in two if pairs),
    )


def compute_pseudo_values(value: ArrayLike, without: ArrayLike) -> Array:
    """Return G value - (G - 1) without, [..., G], of value [...] and without [..., G].

    Their mean is the number less its bias, their standard error is the jackknife's: they stand
    for G independent measurements (Tukey 1958).
    """
    left = np.asarray(without, np.float64)
    G = left.shape[-1]
    return G * np.asarray(value, np.float64)[..., None] - (G - 1) * left


def variance(value: ArrayLike, without: ArrayLike, without_two: ArrayLike = ()) -> Array:
    """Return the square of the standard error, [...], of value [...] and without [..., G].

    without_two: [..., G] or empty, which leaves the part of pairs counted twice. Ten groups
    measure that part roughly: at least a third of the jackknife's square is returned. (Of ten
    groups, a number that is made of pairs alone has 1 / 2.2 of it.)
    """
    left, two = np.asarray(without, np.float64), np.asarray(without_two, np.float64)
    G = left.shape[-1]
    plain = (G - 1) * left.var(-1)
    if not two.size:
        return plain
    together = (interactions(value, left, two) ** 2).mean(-1)
    return np.maximum(plain - _excess(G) * together, plain / 3)


def interactions(value: ArrayLike, without: Array, without_two: Array) -> Array:
    """Return what neighbouring groups make together, [..., G] (Efron & Stein 1981, Section 4).

    It is 0 for whatever is a mean over samples.
    """
    G, whole = without.shape[-1], np.asarray(value, np.float64)[..., None]
    apart = without + np.roll(without, -1, -1)
    return G * whole - (G - 1) * apart + (G - 2) * without_two


def _excess(G: int) -> float:
    """Return what the jackknife counts too much, over the mean square of the interactions.

    For sum_{a != b} h_ab / G² with independent h_ab of mean 0 and variance v, the variance is
    2 (G - 1) v / G³; the jackknife gives 4 (G - 2) v / (G (G - 1)²) on average, and the mean
    square of the interactions is 4 (G² - 2 G - 1) v / (G (G - 1)² (G - 2)).
    """
    twice = 2 * G**2 * (G - 2) / (G - 1) ** 3
    return (1 - 1 / twice) * (G - 2) ** 2 / (G**2 - 2 * G - 1)
