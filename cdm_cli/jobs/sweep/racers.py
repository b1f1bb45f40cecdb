"""What a race is of, decided from headers and flags alone: points, images of a round, budget.

Images come in the order of the store. Where the store has its classes in turn, as `cdm sample`
writes them, each round ends after a whole turn: then all rounds have the same share of each class.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.sampling.blocks import LARGEST, choose_block_size
from cdm_cli.jobs.sampling.store_images import choose_part, choose_rows
from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.metrics.racing import count_first, find_least_budget, plan_rounds
from cdm_cli.names import LEAST_JUDGED
from cdm_cli.options.sweeping import SweepOptions

BLOCK = 32  # images, about: the stores of a race are made of such, and its rounds
MOST_AT_ONCE = 256  # images that are made at a time at most, so that no batch is filled in vain
SHARE = 10  # of the grid's evaluations, one of so many, where no budget is given
UNMIXED = 5.0  # standard deviations of a random order, in which classes may be unequal


@dataclass(frozen=True)
class Racers:
    """The points of a race. labels: int64 [N], of the images of each, in the order of the store.

    step: images are made so many at a time. asked: the budget as typed.
    """

    points: tuple[Point, ...]
    labels: NDArray[np.int64] = field(compare=False)
    step: int
    asked: str

    @property
    def num(self) -> int:
        """N, the images of each point, at most."""
        return len(self.labels)

    def count_lacking(self, num: int) -> int:
        """Return how many of the classes the first num images of each point lack."""
        return len(np.unique(self.labels)) - len(np.unique(self.labels[:num]))

    @property
    def costs(self) -> list[int]:
        """Evaluations of one image of each point."""
        return [point.work.chain.evaluations for point in self.points]

    @property
    def grid(self) -> int:
        """Evaluations of all images of all points."""
        return self.num * sum(self.costs)

    @property
    def least(self) -> int:
        """The least budget, in evaluations, with which there is a first round."""
        return find_least_budget(self.costs, LEAST_JUDGED, self.num, self.step)

    def count_first_images(self, budget: int) -> int:
        """Return how many images of each point the first round has. budget: in evaluations."""
        return count_first(self.costs, budget, self.num, self.step)

    def count_rounds(self, budget: int) -> int:
        """Return how many rounds there are at most. budget: in evaluations."""
        return len(plan_rounds(self.costs, budget).ends)


def choose_racers(options: SweepOptions, sweep: Sweep) -> Racers:
    """Return the points that race, and how many images of each are made at a time.

    Raises UsageError for a single point, and MismatchError for images that are sorted by class.
    """
    points = sweep.points
    if len(points) == 1:
        raise UsageError(
            f"--race: {name_point(points[0].labels)} is the only point, there is nothing to "
            "compare",
            next="more values, or leave --race out",
        )
    with open_store(options.lowres) as store:
        _, part = choose_part(store, None)
        labels = part.read_labels(choose_rows(store, part, options.num))
    num = len(labels)
    step, most = find_step(labels), min(choose_block_size(num), MOST_AT_ONCE)
    block = step if step <= LARGEST else BLOCK
    works = [replace(point.work, block_size=block, most_at_once=most) for point in points]
    made = tuple(replace(point, work=work) for point, work in zip(points, works, strict=True))
    found = Racers(made, labels, step, _spell_budget(options))
    _check_mixed(
        options, labels[: max(LEAST_JUDGED, found.count_first_images(found.grid // SHARE))], labels
    )
    return found


def _spell_budget(options: SweepOptions) -> str:
    if options.budget_evals is not None:
        return f"{options.budget_evals} evaluations"
    return options.budget or f"1/{SHARE} of the grid"


def find_budget(options: SweepOptions, racers: Racers) -> int | None:
    """Return the budget in evaluations, by default a tenth of the grid; None for a time.

    Raises UsageError for less than a first round takes.
    """
    if options.budget is not None:
        return None
    asked = options.budget_evals
    return check_budget(racers.grid // SHARE if asked is None else asked, racers, 0)


def check_budget(budget: int, racers: Racers, per_second: float) -> int:
    """Return a budget in evaluations, cut to those of the whole grid.

    Raises UsageError for less than a first round takes. per_second: the measured speed where the
    budget is a time, 0 where it is not; the error advises a budget of the same kind.
    """
    if racers.count_first_images(budget) >= min(LEAST_JUDGED, racers.num):
        return min(budget, racers.grid)
    flag = f"--budget {math.ceil(racers.least / per_second)}s" if per_second else ""
    asked = f"{racers.asked}, {budget} evaluations," if per_second else racers.asked
    num = racers.count_first_images(racers.least)
    raise UsageError(
        f"--race: a budget of {asked} is too small for a first round: "
        f"{len(racers.points)} points with {num} images each take {racers.least}",
        next=flag or f"--budget-evals {racers.least}",
    )


def find_step(labels: NDArray[np.int64]) -> int:
    """Return how many images of a point are made at a time; each round has a multiple of it.

    Where labels [N] repeat the classes in turn these are whole turns, else a block.
    """
    K = len(np.unique(labels))
    in_turn = bool((labels == np.resize(labels[:K], len(labels))).all())
    return K * math.ceil(BLOCK / K) if in_turn else BLOCK


def _check_mixed(options: SweepOptions, some: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    """Raise MismatchError where the first images are of other classes than all are.

    Chi-square of their classes may be as far above its mean as chance makes it (UNMIXED).
    """
    names, counts = np.unique(labels, return_counts=True)
    here = np.array([(some == name).sum() for name in names])
    meant = counts / len(labels) * len(some)
    chi2, K = float(((here - meant) ** 2 / meant).sum()), len(names)
    if chi2 > K + UNMIXED * math.sqrt(2 * K):
        raise MismatchError(
            f"--race takes images in the order of {options.lowres}, whose first {len(some)} are of "
            "other classes than the rest: they would not stand for it",
            kept="nothing was made",
            next="a store with its classes in turn (cdm sample), or leave --race out",
        )
