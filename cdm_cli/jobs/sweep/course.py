"""A race that is being run: rounds of images for all points that race, numbers, and verdicts."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.fill import fill_store
from cdm_cli.jobs.sampling.pace import measure_rate
from cdm_cli.jobs.sampling.shared_batches import Filling
from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.judges import Bench
from cdm_cli.jobs.sweep.making import Amount, Maker, claim
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.race_file import (
    PAUSED,
    Number,
    RaceFile,
    RoundFile,
    record_round,
    write_race,
)
from cdm_cli.jobs.sweep.race_judge import RaceJudge
from cdm_cli.jobs.sweep.race_table import conclude_race, say_why_it_ended
from cdm_cli.jobs.sweep.racers import Racers, check_budget
from cdm_cli.jobs.sweep.shared import Loaded
from cdm_cli.metrics.comparisons import list_names
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import plan_rounds, race
from cdm_cli.options.sweeping import SweepOptions
from cdm_cli.units import format_count


@dataclass
class Course:
    """A race that is being run: its record, and the stage and the judge of its images.

    made: network evaluations of all processes of the job.
    """

    options: SweepOptions
    sweep: Sweep
    racers: Racers
    file: RaceFile
    loaded: Loaded
    judge: RaceJudge
    bench: Bench
    session: Session
    made: int = 0

    def measure(self, seconds: float) -> None:
        """Turn a budget of seconds into evaluations, once, by the speed that is measured now.

        It is recorded before anything is judged. Raises UsageError for less than a first round
        takes.
        """
        work = self.racers.points[0].work
        mine = measure_rate(work, self.loaded.ready)
        rate = sum(self.session.world.gather(mine))
        paid = int(rate * seconds)
        budget = check_budget(paid, self.racers, rate)
        self._say(f"{self.racers.asked} at {rate:.4g} evaluations/s are {paid} evaluations")
        plan = plan_rounds(self.racers.costs, budget)
        self._record(evaluations=budget, per_second=rate, plan=plan)

    def run(self) -> None:
        """Run all rounds, saying after each which points are beaten, and which are paused."""
        budget, racers, plan = self.file.evaluations, self.racers, self.file.rules
        reference = self.judge.reference.name
        self.file = self.file.model_copy(update={"rounds": (), "reference": reference})
        rounds = len(plan.ends)
        self._say(
            f"a race of {len(racers.points)} points, {budget} of {racers.grid} "
            f"evaluations, in {format_count(rounds, 'round')} at most"
        )
        for done in race(racers.costs, budget, racers.num, self._look, step=racers.step, plan=plan):
            kept = record_round(done, racers)
            left = tuple(racers.points[i].labels for i in done.left)
            self._record(rounds=(*self.file.rounds, kept), left=left)
            self._tell(kept, len(left))
        self._record(conclusion=conclude_race(self.file))
        self._tell_rest()

    def _tell(self, kept: RoundFile, left: int) -> None:
        for one in kept.beaten:
            self._say(f"round {kept.round}: {name_point(one.point)} is {one}")
        if kept.paused:
            names = list_names([name_point(one.point) for one in kept.paused])
            are = "is" if len(kept.paused) == 1 else "are"
            self._say(f"round {kept.round}: {names} {are} {PAUSED}: what is left goes to others")
        waited = left > len(kept.points) - len(kept.beaten)
        each = "of each that raced" if waited else "each"
        self._say(
            f"round {kept.round}: {_say_who_may_be_best(left)} after {kept.num} "
            f"images {each}, {kept.evaluations} evaluations"
        )

    def _tell_rest(self) -> None:
        """Say why a part of the budget is left: for a step of images of all, or after a pause."""
        file, some = self.file, [point.labels in self.file.left for point in self.racers.points]
        rest = file.evaluations - file.spent
        step = sum(cost for cost, here in zip(self.racers.costs, some, strict=True) if here)
        if rest >= step * self.racers.step or file.rounds[-1].paused:
            self._say(
                f"{rest} of {file.evaluations} evaluations are left: {say_why_it_ended(file)}"
            )

    def _look(self, some: Sequence[int], num: int) -> list[Estimate]:
        """Return the numbers of some points, making and judging what is missing of them."""
        lacking = self.racers.count_lacking(num)
        but = f", which lack {lacking} of the classes" if lacking else ""
        self._say(f"{format_count(len(some), 'point')} on {format_count(num, 'image')} each{but}")
        points = [self.racers.points[i] for i in some]
        missing = [one for one in points if not self.file.find_number(one.labels, num)]
        if self.session.world.size > 1:
            self._make_in_turn(missing, num)
        elif missing:
            self._make_together(missing, num)
        found = [self.file.find_number(one.labels, num) for one in points]
        return [one.estimate for one in found if one]

    def _make_in_turn(self, points: Sequence[Point], num: int) -> None:
        """Make one point after another, its rows shared among the processes of the job."""
        for point in points:
            ready = self.loaded.switch_to(point.work)
            made = fill_store(point.work, ready, point.samples, self.session, upto=num)
            self.made += made.network_evaluations
            found = self.session.world.gather(self.judge.estimate(point, num))[0]
            self._record(numbers=(*self.file.numbers, _make_number(point, num, found)))

    def _make_together(self, points: Sequence[Point], num: int) -> None:
        """Make points in shared batches, each judged while the next ones are sampled.

        All stores are locked before the first batch. Numbers are recorded in the order of points.
        """
        before, found = self.file.numbers, dict[Path, Number]()
        judge = replace(self.judge, panel=self.bench.panel)

        def keep(point: Point, estimate: Estimate) -> None:
            found[point.samples] = _make_number(point, num, estimate)
            judged = takewhile(lambda one: one.samples in found, points)
            self._record(numbers=(*before, *(found[one.samples] for one in judged)))

        def hand_over(point: Point) -> None:
            self.bench.give(partial(judge.estimate, point, num), partial(keep, point))

        with ExitStack() as stack:
            fillings = [
                Filling(
                    point.work, stack.enter_context(claim(point, self.loaded)),
                    partial(hand_over, point), num,
                )
                for point in points
            ]  # fmt: skip
            whole = Amount.of((one.work, one.num) for one in fillings)
            missing = Amount.of((one.work, one.num_missing) for one in fillings)
            maker = Maker(self.options.command, self.session, self.loaded, self.bench)
            maker.fill(fillings, whole, missing)
        self.made += missing.evaluations

    def _say(self, line: str) -> None:
        self.session.report.say(f"{self.options.command}: {line}")

    def _record(self, **changes: Any) -> None:
        self.file = self.file.model_copy(update=changes)
        self.session.lead(lambda: write_race(self.sweep.out, self.file))


def _say_who_may_be_best(num: int) -> str:
    return "1 point is the best" if num == 1 else f"{num} points may be the best"


def _make_number(point: Point, num: int, found: Estimate) -> Number:
    return Number(point=point.labels, num=num, value=found.value, without=found.without)
