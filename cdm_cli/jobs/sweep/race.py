"""`cdm sweep --race`: images go to the points of which they are likely to tell who is the best.

Each point has a store of its final size. A round fills the first images of the stores of all points
that are neither beaten nor paused; the stores are those of the grid, which the same command without
`--race` goes on to fill. The course of a race depends on its budget and on the images alone: an
image that is there already is not made again, but counts as if it were.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.data import lock
from cdm_cli.jobs.runtime.identity import check_same
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.course import Course
from cdm_cli.jobs.sweep.judges import Bench
from cdm_cli.jobs.sweep.page import write_report
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.race_file import Number, RaceFile, read_race
from cdm_cli.jobs.sweep.race_judge import RaceJudge
from cdm_cli.jobs.sweep.race_table import RaceTable
from cdm_cli.jobs.sweep.racers import Racers, choose_racers, find_budget
from cdm_cli.jobs.sweep.shared import check_points, open_panel_and_stage
from cdm_cli.jobs.sweep.table import write_start
from cdm_cli.metrics.racing import plan_rounds
from cdm_cli.names import RACE_FILE, REPORT
from cdm_cli.options.durations import parse_seconds
from cdm_cli.options.sweeping import SweepOptions


@dataclass(frozen=True)
class RaceResult:
    """What a race found. left: the names of the points that may be the best.

    evaluations: network evaluations of all rounds; made: those of this run, the others were there;
    grid: those that all images of all points take. page: the report of the sweep.
    """

    unshown: ClassVar = ("left", "evaluations", "grid")  # the conclusion says it in words

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
    loaded where that can be known; MismatchError for images that are sorted by class; StoppedError
    when asked to stop, and where another job works in the directory.
    """
    racers, begun = session.decide(lambda: begin(options, sweep, command), _list_compared)
    if begun.conclusion:
        session.report.say(f"{sweep.out}: the race is over")
        return _make_result(sweep, begun, 0, session)
    session.lead(lambda: check_points(racers.points, session))
    panel, loaded = open_panel_and_stage(options, racers.points, session)
    session.lead(lambda: write_start(sweep, command))
    with ExitStack() as stack:
        # Two at once would write over each other's numbers; one may have ended by now.
        session.lead(lambda: stack.enter_context(lock.hold_directory(sweep.out, alone=True)))
        racers, begun = session.decide(lambda: begin(options, sweep, command), _list_compared)
        bench = stack.enter_context(Bench(panel, options.command))
        judge = RaceJudge(panel, options.sampling.seed)
        course = Course(options, sweep, racers, begun, loaded, judge, bench, session)
        if options.budget and not begun.evaluations:
            course.measure(parse_seconds(options.budget) or 0)
        course.run()
    return _make_result(sweep, course.file, course.made, session)


def begin(options: SweepOptions, sweep: Sweep, command: str) -> tuple[Racers, RaceFile]:
    """Return the points that race, and the record of the race as far as it was run.

    evaluations is 0 in the record while a budget that is a time was not yet measured. Raises what
    `choose_racers` and `find_budget` raise, and WouldOverwriteError where an axis stands for other
    weights or another schedule than when its point raced.
    """
    racers = choose_racers(options, sweep)
    budget = find_budget(options, racers)
    there = read_race(sweep.out, sweep.mark)
    numbers = _take_numbers(there, racers, sweep.out) if there else ()
    if there and there.is_same_race(racers):
        return racers, there
    return racers, RaceFile(
        command=command,
        sweep=sweep.mark,
        asked=racers.asked,
        evaluations=budget or 0,
        plan=plan_rounds(racers.costs, budget) if budget else None,
        points=tuple(point.labels for point in racers.points),
        decided=tuple(dict(point.decided) for point in racers.points),
        costs=tuple(racers.costs),
        num=racers.num,
        step=racers.step,
        grid=racers.grid,
        numbers=numbers,
    )


def _take_numbers(there: RaceFile, racers: Racers, out: Path) -> tuple[Number, ...]:
    """Return the numbers that serve another race, once all points are what they were.

    What the axes of a point decide is known of the last race alone.
    """
    was = list(zip(there.points, there.decided, strict=False))
    for point in racers.points:
        for decided in (decided for labels, decided in was if labels == point.labels):
            check_same(out / RACE_FILE, "sampling", decided, point.decided)
    if not any(there.decided):  # no axes, or an earlier version
        return there.numbers
    return tuple(one for one in there.numbers if one.point in there.points)


def _list_compared(begun: tuple[Racers, RaceFile]) -> dict[str, Any]:
    return {"race": begun[1].model_dump(mode="json")}


def _make_result(sweep: Sweep, found: RaceFile, made: int, session: Session) -> RaceResult:
    """Write the page of a race that is over, and return what it found."""
    session.lead(lambda: write_report(sweep.out, session.report))
    return RaceResult(
        out=sweep.out,
        page=sweep.out / REPORT,
        conclusion=found.conclusion,
        left=tuple(map(name_point, found.left)),
        evaluations=found.spent,
        made=made,
        grid=found.grid,
        table=RaceTable(found),
    )
