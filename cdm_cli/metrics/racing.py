"""Which of many points is the best, for few images: those that are beaten get no more.

In each round all points that are left are judged on the same images, those of earlier rounds and
new ones, and those leave that are certain not to be better than all others (best.py). What their
images would have cost goes to the others. Looking several times is several chances to lose the
best: each round has its share of the 5 %, fixed before anything is seen, and the shares add up to
them, so that the best is still among those that are left with a probability of 95 % (Bonferroni;
spending as in Lan & DeMets 1983). Most of it is spent on the last round: early ones are for what
is beaten by far.

A round ends at a fixed share of the budget. How many images that is depends on how many points are
left, on nothing else: as long as only what is truly worse leaves, what decides is fixed in advance
up to that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cdm_cli.metrics.best import Contender, contenders
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.verdicts import LEVEL

ENDS = (1 / 8, 1 / 3, 2 / 3, 1.0)  # of the budget, where rounds end
EARLY = (0.04, 0.06, 0.15)  # of the level, for the rounds before the last
FIRST = 100  # images of the first of several rounds, at least
FEWEST, MOST = 10, 40  # groups of the jackknife
OF_A_GROUP = 10  # images, at least, of more than the fewest groups

JudgePoints = Callable[[Sequence[int], int], Sequence[Estimate]]


@dataclass(frozen=True)
class Round:
    """One round: the points that were judged on `num` images each, and what was found.

    level: how likely it is at most that the best leaves. spent: evaluations of all rounds up to
    this one.
    """

    number: int
    num: int
    level: float
    judged: tuple[int, ...]
    found: tuple[Contender, ...]
    spent: int

    @property
    def left(self) -> tuple[int, ...]:
        """The points that may be the best."""
        return tuple(i for i, one in self._pairs if not one.beaten)

    @property
    def beaten(self) -> tuple[tuple[int, Contender], ...]:
        """The points that leave, and by how much."""
        return tuple(pair for pair in self._pairs if pair[1].beaten)

    @property
    def lowest(self) -> int:
        """The point that the others are compared with."""
        return next(i for i, one in self._pairs if one.lowest)

    @property
    def _pairs(self) -> tuple[tuple[int, Contender], ...]:
        return tuple(zip(self.judged, self.found, strict=True))


def num_groups(num: int) -> int:
    """Return into how many groups the images of a round are dealt: the more, the surer.

    Of 13 points ten groups ask for a difference of 2.8 to 3.2 errors, forty for 2.4 to 2.6, which
    0.7 times as many images give.
    """
    return min(MOST, max(FEWEST, num // OF_A_GROUP))


def shares(costs: Sequence[int], budget: int) -> list[float]:
    """Return at which shares of the budget the rounds end, the first after FIRST images or more."""
    return [end for end in ENDS[:-1] if end * budget >= FIRST * sum(costs)] + [ENDS[-1]]


def levels(rounds: int, level: float = LEVEL) -> list[float]:
    """Return the share of the level that each round has; they add up to it."""
    early = [share * level for share in EARLY[len(EARLY) - rounds + 1 :]]
    return [*early, level - sum(early)]


def first_num(costs: Sequence[int], budget: int, num: int, step: int) -> int:
    """Return how many images of each point the first round has; 0 if the budget has none."""
    return _num(0, shares(costs, budget)[0] * budget, costs, num, step)


def least_budget(costs: Sequence[int], least: int, num: int, step: int) -> int:
    """Return the evaluations with which the first round has `least` images of each point."""
    return sum(costs) * min(-(-least // step) * step, num)


def race(
    costs: Sequence[int],
    budget: int,
    num: int,
    judge: JudgePoints,
    *,
    step: int = 1,
    level: float = LEVEL,
) -> Iterator[Round]:
    """Yield the rounds of a race, until one point is left, all have `num` images, or none is paid.

    costs: evaluations of one image of each point. budget: evaluations in all. judge: returns a
    number, less of which is better, for each of some points on their first n images, with what it
    is without each group of these. step: images are made so many at a time.
    """
    here, n, spent, level_left = list(range(len(costs))), 0, 0, level
    ends = shares(costs, budget)
    for number, (end, mine) in enumerate(zip(ends, levels(len(ends), level), strict=True), 1):
        more = _num(n, end * budget - spent, [costs[i] for i in here], num, step)
        if more == n:
            continue
        spent += (more - n) * sum(costs[i] for i in here)
        n = more
        last = number == len(ends) or n == num
        mine = level_left if last else mine
        level_left -= mine
        found = contenders(judge(here, n), level=mine)
        done = Round(number, n, mine, tuple(here), tuple(found), spent)
        yield done
        here = list(done.left)
        if len(here) == 1 or n == num:
            return


def _num(n: int, paid: float, costs: Sequence[int], num: int, step: int) -> int:
    """Return how many images each point has after n and what is paid for more, whole steps."""
    more = n + int(paid // sum(costs))
    return num if more >= num else max(n, more // step * step)
