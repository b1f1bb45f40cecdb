"""Which of many points is the best, for few images: they go to where they are likely to decide.

In each round the points that race are judged on the same images, those of earlier rounds and new
ones, and those are beaten that are certain not to be better than all others (best.py). From half
of the budget on, points are paused that the rest of it is not likely to beat: they may be the best,
and their images go to those that it is, and to the lowest ones, which beat them (pausing.py).

Looking several times is several chances to lose the best: each round has its share of the 5 %,
fixed before anything is seen, and the shares add up to them, so that the best is not beaten with a
probability of 95 % (Bonferroni; spending as in Lan & DeMets 1983). Most of it is spent on the last
round: early ones are for what is beaten by far, and to pause points, which takes no share, since a
point that is paused is not beaten.

A round ends at a fixed share of the budget. How many images that is depends on how many points are
left to race. Where all but one are beaten, or a round gives all images to those that race, paused
points race again: as many as the rest of the budget brings to as many images, those first that were
the nearest to be beaten.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cdm_cli.metrics.best import Contender, rank_contenders
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.pausing import go_on
from cdm_cli.metrics.verdicts import LEVEL

FIRST = 100  # images of each point that the first of several rounds could pay for, at least
FEWEST, MOST = 10, 40  # groups of the jackknife
OF_A_GROUP = 10  # images, at least, of more than the fewest groups

JudgePoints = Callable[[Sequence[int], int], Sequence[Estimate]]


@dataclass(frozen=True)
class Pattern:
    """How races look: ends of the rounds, in shares of a budget, and their shares of the level.

    early: of the rounds before the last, which has the rest. pauses: the share of a budget from
    which on points are paused; 1 for never. wakes: see `RacePlan`.
    """

    ends: tuple[float, ...]
    early: tuple[float, ...]
    pauses: float
    wakes: bool = False


NOW = Pattern((0.25, 0.5, 0.7, 0.85, 1.0), (0.02, 0.03, 0.1, 0.15), pauses=0.5, wakes=True)
BEFORE = Pattern((1 / 8, 1 / 3, 2 / 3, 1.0), (0.04, 0.06, 0.15), pauses=1.0)  # of earlier versions


@dataclass(frozen=True)
class RacePlan:
    """The rounds of one race: where they end, in shares of its budget, and the level of each.

    pauses: the share of the budget from which on points are paused after a round. wakes: whether as
    many paused points as the budget pays for race again once the others need no more images; where
    it is not (races of earlier versions), all do or none, once a single other one is left.
    """

    ends: tuple[float, ...]
    levels: tuple[float, ...]
    pauses: float
    wakes: bool = False


@dataclass(frozen=True)
class Round:
    """One round: the points that were judged on `num` images each, and what was found.

    level: how likely it is at most that the best is beaten in it. spent: evaluations of all rounds
    up to this one. paused: points that are paused after it. waiting: those that were before.
    """

    number: int
    num: int
    level: float
    judged: tuple[int, ...]
    found: tuple[Contender, ...]
    spent: int
    paused: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()

    @property
    def left(self) -> tuple[int, ...]:
        """The points that may be the best, paused or not."""
        return tuple(sorted((*self.waiting, *(i for i, one in self._pairs if not one.beaten))))

    @property
    def racing(self) -> tuple[int, ...]:
        """The points that go on to the next round."""
        aside = {*self.waiting, *self.paused}
        return tuple(i for i in self.left if i not in aside)

    def pause(self, kept: Sequence[int]) -> "Round":
        """Return the same round with all points paused that race on and are not at these places."""
        stay = {self.judged[place] for place in kept}
        return replace(self, paused=tuple(i for i in self.racing if i not in stay))

    @property
    def beaten(self) -> tuple[tuple[int, Contender], ...]:
        """The points that are beaten, and by how much."""
        return tuple(pair for pair in self._pairs if pair[1].beaten)

    @property
    def lowest(self) -> int:
        """The point that the others are compared with."""
        return next(i for i, one in self._pairs if one.lowest)

    @property
    def _pairs(self) -> tuple[tuple[int, Contender], ...]:
        return tuple(zip(self.judged, self.found, strict=True))


def count_groups(num: int) -> int:
    """Return into how many groups the images of a round are dealt: the more, the surer.

    Of 13 points ten groups ask for a difference of 2.8 to 3.2 errors, forty for 2.4 to 2.6, which
    0.7 times as many images give.
    """
    return min(MOST, max(FEWEST, num // OF_A_GROUP))


def plan_rounds(costs: Sequence[int], budget: int, way: Pattern | None = None) -> RacePlan:
    """Return the rounds of a race, all but the last once FIRST images of each point are paid for.

    Where images are made in steps a round may have fewer. way: how it looks, by default NOW. The
    levels add up to LEVEL.
    """
    way = way or NOW
    ends = [end for end in way.ends[:-1] if end * budget >= FIRST * sum(costs)]
    early = [share * LEVEL for share in way.early[len(way.early) - len(ends) :]]
    return RacePlan((*ends, way.ends[-1]), (*early, LEVEL - sum(early)), way.pauses, way.wakes)


def count_first(costs: Sequence[int], budget: int, num: int, step: int) -> int:
    """Return how many images of each point the first round has; 0 if the budget has none.

    A round that pays for less than a step of images is none.
    """
    ends = plan_rounds(costs, budget).ends
    counts = (_count_images(0, end * budget, costs, num, step) for end in ends)
    return next(filter(None, counts), 0)


def find_least_budget(costs: Sequence[int], least: int, num: int, step: int) -> int:
    """Return the evaluations with which the first round has `least` images of each point."""
    return sum(costs) * min(-(-least // step) * step, num)


def race(
    costs: Sequence[int],
    budget: int,
    num: int,
    judge: JudgePoints,
    *,
    step: int = 1,
    plan: RacePlan | None = None,
) -> Iterator[Round]:
    """Yield the rounds of a race, until one point is left, all have `num` images, or none is paid.

    costs: evaluations of one image of each point. budget: evaluations in all. judge: returns a
    number, less of which is better, for each of some points on their first n images, with what it
    is without each group of these. step: images are made so many at a time. plan: by default
    `plan_rounds` the budget.
    """
    plan = plan or plan_rounds(costs, budget)
    field = _Field(costs, budget, num, step, plan.wakes)
    level = sum(plan.levels)
    for number, (end, mine) in enumerate(zip(plan.ends, plan.levels, strict=True), 1):
        if not field.make(end):
            continue
        last = number == len(plan.ends) or field.n == num
        mine = level if last else mine
        level -= mine
        found = tuple(rank_contenders(judge(field.here, field.n), level=mine))
        done = Round(number, field.n, mine, field.here, found, field.spent, waiting=field.aside)
        if end >= plan.pauses and not last:
            here = [costs[i] for i in field.here]
            kept = go_on(found, here, field.n, num, budget - field.spent, level)
            done = done.pause(kept)
        yield done
        if not field.follow(done):
            return


class _Field:
    """The points of a race between two rounds. here: those that race; aside: those that are paused.

    n: images of each that races, at least; made: of each point. spent: evaluations.
    """

    def __init__(self, costs: Sequence[int], budget: int, num: int, step: int, wakes: bool) -> None:
        self._costs, self._budget, self._num, self._step = costs, budget, num, step
        self._wakes, self._p = wakes, dict[int, float]()
        self.here, self.aside = tuple(range(len(costs))), tuple[int, ...]()
        self.n, self.spent, self.made = 0, 0, [0] * len(costs)

    def make(self, end: float) -> bool:
        """Give images to all that race, up to a share of the budget; return whether it has any."""
        behind = self._count_cost(self.here)
        paid = end * self._budget - self.spent - behind
        here = [self._costs[i] for i in self.here]
        more = _count_images(self.n, paid, here, self._num, self._step)
        catches_up = self._wakes and behind > 0 and paid >= 0
        if more == self.n and not catches_up:
            return False
        self.n = more
        self._give(self.here)
        if self._wakes and self.n == self._num:
            self._give(self._wake())
        return True

    def follow(self, done: Round) -> bool:
        """Take out who is beaten or paused; return whether another round may follow."""
        self._p |= {i: one.p for i, one in zip(done.judged, done.found, strict=True)}
        self.here, self.aside = done.racing, (*self.aside, *done.paused)
        if len(self.here) == 1 and self.n < self._num:
            self._wake()
        return len(self.here) > 1 and self.n < self._num

    def _wake(self) -> list[int]:
        """Let those paused points race that the rest of the budget brings to n images."""
        woken, paid = list[int](), self._budget - self.spent
        for i in sorted(self.aside, key=lambda i: self._p[i]):
            if not self._wakes or self._count_cost([*woken, i]) <= paid:
                woken.append(i)
        self.here = tuple(sorted((*self.here, *woken)))
        self.aside = tuple(i for i in self.aside if i not in woken)
        return woken

    def _give(self, some: Iterable[int]) -> None:
        """Make the images that some points lack of n."""
        self.spent += self._count_cost(some)
        for i in some:
            self.made[i] = self.n

    def _count_cost(self, some: Iterable[int]) -> int:
        """Return the evaluations that some points take to have n images each."""
        return sum(self._costs[i] * (self.n - self.made[i]) for i in some)


def _count_images(n: int, paid: float, costs: Sequence[int], num: int, step: int) -> int:
    """Return how many images each point has after n and what is paid for more, whole steps."""
    more = n + int(paid // sum(costs))
    return num if more >= num else max(n, more // step * step)
