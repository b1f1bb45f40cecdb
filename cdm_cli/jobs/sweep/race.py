"""`cdm sweep --race`: images go to the points of which they are likely to tell who is the best.

Each point has a store of its final size. A round fills the first images of the stores of all points
that are neither beaten nor paused; the stores are those of the grid, which the same command without
`--race` goes on to fill. The course of a race depends on its budget and on the images alone: an
image that is there already is not made again, but counts as if it were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cdm_cli.data import lock
from cdm_cli.data.store import open_store
from cdm_cli.jobs.judging.images import ImageSet, collect
from cdm_cli.jobs.judging.panel import Panel
from cdm_cli.jobs.runtime.identity import check_same
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.fill import fill_store
from cdm_cli.jobs.sampling.pace import measure_rate
from cdm_cli.jobs.sweep.choice import PREFERRED, name_of
from cdm_cli.jobs.sweep.page import write_report
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.race_file import (
    FILE,
    PAUSED,
    Number,
    RaceFile,
    RaceTable,
    RoundFile,
    conclude_race,
    read_race,
    round_file,
    write_race,
)
from cdm_cli.jobs.sweep.racers import Racers, budget_of, check_budget, racers
from cdm_cli.jobs.sweep.shared import Loaded, check_points, open_both
from cdm_cli.jobs.sweep.table import PAGE, write_start
from cdm_cli.metrics.comparisons import list_names
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import count_groups, plan_rounds, race
from cdm_cli.metrics.reference import Reference
from cdm_cli.options.durations import seconds_of
from cdm_cli.options.sweeping import SweepOptions

KEPT = 2  # features of images, which no number of a race needs


@dataclass(frozen=True)
class RaceResult:
    """What a race found. left: the names of the points that may be the best.

    evaluations: network evaluations of all rounds; made: those of this run, the others were there;
    grid: those that all images of all points take. page: the report of the sweep.
    """

    unshown: ClassVar = ("left",)

    out: Path
    page: Path
    conclusion: str
    left: tuple[str, ...]
    evaluations: int
    made: int
    grid: int
    table: RaceTable


def run_race(options: SweepOptions, sweep: Sweep, command: str, session: Session) -> RaceResult:
    """Race as one process of a job; return what was found.

    Raises UsageError for one point and for a budget without a first round, before any weights are
    loaded where that can be known; MismatchError for images that are sorted by class; StoppedError.
    """
    field, begun = session.decide(lambda: begin(options, sweep, command), _fields_to_compare)
    if begun.conclusion:
        session.report.say(f"{sweep.out}: the race is over")
        return _result(sweep, begun, 0, session)
    session.lead(lambda: check_points(field.points, session))
    panel, loaded = open_both(options, field.points, session)
    session.lead(lambda: write_start(sweep, command))
    with lock.directory(sweep.out, alone=False):
        course = Course(options, sweep, field, begun, panel, loaded, session)
        if options.budget and not begun.evaluations:
            course.measure(seconds_of(options.budget) or 0)
        return course.run()


def begin(options: SweepOptions, sweep: Sweep, command: str) -> tuple[Racers, RaceFile]:
    """Return the points that race, and the record of the race as far as it was run.

    evaluations is 0 in the record while a budget that is a time was not yet measured. Raises what
    `racers` and `budget_of` raise, and WouldOverwriteError where an axis stands for other weights
    or another schedule than when its point raced.
    """
    field = racers(options, sweep)
    budget = budget_of(options, field)
    there = read_race(sweep.out, sweep.mark)
    numbers = _take_numbers(there, field, sweep.out) if there else ()
    if there and there.same_race(field):
        return field, there
    return field, RaceFile(
        command=command,
        sweep=sweep.mark,
        asked=field.asked,
        evaluations=budget or 0,
        plan=plan_rounds(field.costs, budget) if budget else None,
        points=tuple(point.labels for point in field.points),
        decided=tuple(dict(point.decided) for point in field.points),
        costs=tuple(field.costs),
        num=field.num,
        step=field.step,
        grid=field.grid,
        numbers=numbers,
    )


def _take_numbers(there: RaceFile, field: Racers, out: Path) -> tuple[Number, ...]:
    """Return the numbers that serve another race, once all points are what they were.

    What the axes of a point decide is known of the last race alone.
    """
    was = list(zip(there.points, there.decided, strict=False))
    for point in field.points:
        for decided in (decided for labels, decided in was if labels == point.labels):
            check_same(out / FILE, "sampling", decided, point.decided)
    if not any(there.decided):  # no axes, or an earlier version
        return there.numbers
    return tuple(one for one in there.numbers if one.point in there.points)


def _fields_to_compare(begun: tuple[Racers, RaceFile]) -> dict[str, Any]:
    return {"race": begun[1].model_dump(mode="json")}


def _result(sweep: Sweep, found: RaceFile, made: int, session: Session) -> RaceResult:
    """Write the page of a race that is over, and return what it found."""
    session.lead(lambda: write_report(sweep.out, session.report))
    return RaceResult(
        out=sweep.out,
        page=sweep.out / PAGE,
        conclusion=found.conclusion,
        left=tuple(map(name_of, found.left)),
        evaluations=found.spent,
        made=made,
        grid=found.grid,
        table=RaceTable(found),
    )


class Course:
    """A race that is being run: its record, and the stage and the judge of its images."""

    def __init__(
        self, options: SweepOptions, sweep: Sweep, field: Racers, begun: RaceFile, panel: Panel,
        loaded: Loaded, session: Session,
    ) -> None:  # fmt: skip
        self.command, self.seed = options.command, options.sampling.seed
        self.sweep, self.field, self.file = sweep, field, begun
        self.panel, self.session, self.made = panel, session, 0
        self.loaded = loaded
        self.reference = _deciding_reference(panel.references)

    def measure(self, seconds: float) -> None:
        """Turn a budget of seconds into evaluations, once, by the speed that is measured now.

        It is recorded before anything is judged. Raises UsageError for less than a first round
        takes.
        """
        work = self.field.points[0].work
        mine = measure_rate(work, self.loaded.ready)
        rate = sum(self.session.world.gather(mine))
        paid = int(rate * seconds)
        budget = check_budget(paid, self.field, rate)
        self._say(f"{self.field.asked} at {rate:.4g} evaluations/s are {paid} evaluations")
        plan = plan_rounds(self.field.costs, budget)
        self._record(evaluations=budget, per_second=rate, plan=plan)

    def run(self) -> RaceResult:
        """Run all rounds, saying after each which points are beaten, and which are paused."""
        budget, field, plan = self.file.evaluations, self.field, self.file.rules
        self.file = self.file.model_copy(update={"rounds": (), "reference": self.reference.name})
        rounds = len(plan.ends)
        self._say(
            f"a race of {len(field.points)} points, {budget} of {field.grid} "
            f"evaluations, in {rounds} round{'' if rounds == 1 else 's'} at most"
        )
        for done in race(field.costs, budget, field.num, self._judge, step=field.step, plan=plan):
            kept = round_file(done, field)
            left = tuple(field.points[i].labels for i in done.left)
            self._record(rounds=(*self.file.rounds, kept), left=left)
            self._tell(kept, len(left))
        self._record(conclusion=conclude_race(self.file))
        made = sum(self.session.world.gather(self.made))
        return _result(self.sweep, self.file, made, self.session)

    def _tell(self, kept: RoundFile, left: int) -> None:
        for one in kept.beaten:
            self._say(f"round {kept.round}: {name_of(one.point)} is {one}")
        if kept.paused:
            names = list_names([name_of(one.point) for one in kept.paused])
            are = "is" if len(kept.paused) == 1 else "are"
            self._say(f"round {kept.round}: {names} {are} {PAUSED}: what is left goes to others")
        waited = left > len(kept.points) - len(kept.beaten)
        each = "of each that raced" if waited else "each"
        self._say(
            f"round {kept.round}: {_may_be_the_best(left)} after {kept.num} "
            f"images {each}, {kept.evaluations} evaluations"
        )

    def _judge(self, some: Sequence[int], num: int) -> list[Estimate]:
        self._say(f"{len(some)} points on {num} images each")
        return [self._number(self.field.points[i], num).estimate for i in some]

    def _number(self, point: Point, num: int) -> Number:
        """Return the number of a point, making and judging what is missing of it."""
        there = self.file.number(point.labels, num)
        if there:
            return there
        ready = self.loaded.ready_for(point.work)
        made = fill_store(point.work, ready, point.samples, self.session, upto=num)
        self.made += made.network_evaluations
        found = self.session.world.gather(self._estimate(point, num))[0]
        number = Number(point=point.labels, num=num, value=found.value, without=found.without)
        self._record(numbers=(*self.file.numbers, number))
        return number

    def _estimate(self, point: Point, num: int) -> Estimate:
        """Judge the first num images of a point, by FID against one reference."""
        with open_store(point.samples) as store:
            part, rows = store.parts[""], np.arange(num)
            images = ImageSet(
                name=str(point.samples),
                digest="",
                images=part.images(max(part.resolutions)),
                rows=rows,
                ids=np.asarray(part.ids[:num]),
                labels=np.asarray(part.labels_of(slice(num))),
                classes=tuple(store.classes),
                check=part.check,
            )
            collector = collect(
                images, self.panel.judge.extractor, self.session, keep=KEPT, seed=self.seed,
                num_groups=count_groups(num),
            )  # fmt: skip
        return collector.frechet(self.reference.gaussian, pairs=False)

    def _say(self, line: str) -> None:
        self.session.report.say(f"{self.command}: {line}")

    def _record(self, **changes: Any) -> None:
        self.file = self.file.model_copy(update=changes)
        self.session.lead(lambda: write_race(self.sweep.out, self.file))


def _may_be_the_best(num: int) -> str:
    return "1 point is the best" if num == 1 else f"{num} points may be the best"


def _deciding_reference(references: Sequence[Reference]) -> Reference:
    """Return train, as the paper selects, or the first there is."""
    named = (one for one in references if one.name == PREFERRED)
    return next(named, references[0])
