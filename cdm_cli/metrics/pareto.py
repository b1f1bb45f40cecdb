"""Which points are worth their cost: the Pareto front of cost against a number, with certainty.

A point is on the front unless one that costs no more is certain to be better. For every cost the
points that cost no more are one family, of which `verdicts.py` says which may be the best; a point
stays if it may be, in the family of its own cost. Each of K families is judged at level / K, so
that all of them together leave out a point of the true front with a probability of `level` at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.verdicts import LEVEL, reach_verdicts


@dataclass(frozen=True)
class FrontPlace:
    """Where a point is. against: the lowest of those that cost no more, by its place in the list.

    difference: how much higher this point is, both less their biases, with its standard error.
    """

    on_front: bool
    against: int
    difference: float
    error: float


def find_front(
    costs: Sequence[int], estimates: Sequence[Estimate], *, level: float = LEVEL
) -> list[FrontPlace]:
    """Return whether each of P points is on the front; less is better, of cost and number.

    costs, estimates: [P]. Raises ValueError for different numbers of groups.
    """
    families = {
        cost: [i for i, one in enumerate(costs) if one <= cost] for cost in sorted(set(costs))
    }
    K = max(1, sum(len(family) > 1 for family in families.values()))
    places: dict[int, FrontPlace] = {}
    for cost, family in families.items():
        found = reach_verdicts([estimates[i] for i in family], level=level / K)
        lowest = next(i for i, one in zip(family, found, strict=True) if one.lowest)
        for i, one in zip(family, found, strict=True):
            if costs[i] == cost:
                places[i] = FrontPlace(one.standing != "worse", lowest, one.difference, one.error)
    return [places[i] for i in range(len(costs))]
