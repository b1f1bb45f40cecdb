"""Which points of a race get more images: those that these are likely to beat, and the lowest.

After a round each point has a p: the level at which it would be beaten. As a normal deviate z it
grows like a mean over its own error: with rho times as many images it is drawn around z sqrt(rho)
with the variance rho - 1, where nothing but these images is known of it. How many images there are
depends on how many points share them. So the points are taken by their p, the lowest first, as many
as make the mean number that the rest of the budget beats the largest. All others wait.
"""

from collections.abc import Sequence
from statistics import NormalDist

from cdm_cli.metrics.best import Contender

LOWEST = 2  # points that always go on: one of them beats the others
NORMAL = NormalDist()


def go_on(
    found: Sequence[Contender], costs: Sequence[int], n: int, num: int, paid: int, level: float
) -> list[int]:
    """Return the places of the points that get more images, of a round of n images of each.

    costs: evaluations of one image of each point. num: images of a point, at most. paid:
    evaluations that are left. level: at which points will be beaten. Beaten points get no images.
    """
    here = [place for place, one in enumerate(found) if not one.beaten]
    lowest = sorted(here, key=lambda place: found[place].difference)[:LOWEST]
    others = sorted((i for i in here if i not in lowest), key=lambda place: found[place].p)
    most, best = 0.0, here
    for count in range(1, len(others) + 1):
        some = others[:count]
        more = paid / sum(costs[place] for place in (*lowest, *some))
        ratio = min(num, n + more) / n
        mean = sum(reckon_chance(found[place].p, ratio, level) for place in some)
        if mean > most:
            most, best = mean, [*lowest, *some]
    return sorted(best)


def reckon_chance(p: float, ratio: float, level: float) -> float:
    """Return how likely a point is to be beaten at a level by `ratio` times the images of its p."""
    if p >= 1 or ratio <= 1:
        return 0.0
    z, least = (NORMAL.inv_cdf(1 - one) for one in (p, level))
    return NORMAL.cdf((z * ratio**0.5 - least) / (ratio - 1) ** 0.5)
