"""`cdm sweep` and `sweep-s`: the same images upsampled at every point, and judged (Table 3).

One process loads the stage, the judge and the statistics of the real images once. Every point
keeps its samples as an ordinary store and its numbers in a small file beside it, so the same
command continues where it stopped; other values of s under the same -o join those there.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.cost import estimate_cost
from cdm_cli.jobs.sampling.provenance import spell_command
from cdm_cli.jobs.sampling.schedule_file import tell_schedule
from cdm_cli.jobs.sweep.applied import apply_chosen, say_how_sure
from cdm_cli.jobs.sweep.choice import Chosen, Judged, choose, conclude, name_point
from cdm_cli.jobs.sweep.fill import fill_points
from cdm_cli.jobs.sweep.front import Placed, place_points, say_front
from cdm_cli.jobs.sweep.page import write_report
from cdm_cli.jobs.sweep.plan import Sweep, plan_work
from cdm_cli.jobs.sweep.plot import write_plot
from cdm_cli.jobs.sweep.point import DECIDED, NAME, Point
from cdm_cli.jobs.sweep.race import RaceResult, begin, run_race
from cdm_cli.jobs.sweep.race_file import RaceFile
from cdm_cli.jobs.sweep.racers import Racers
from cdm_cli.jobs.sweep.shared import check_points, count_new_bytes
from cdm_cli.jobs.sweep.table import (
    PLOT,
    SweepTable,
    join_table,
    read_all_points,
    take_recorded,
    write_all,
)
from cdm_cli.names import REPORT
from cdm_cli.options.sampling import Sampling
from cdm_cli.options.sweeping import SweepOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found, and where it is.

    conclusion: how the points compare; choice: how sure the choice is; front: which points are
    worth their cost; each in one sentence. chosen: the point of the lowest FID. pareto: the place
    of each point between evaluations and FID; () where all cost the same.
    """

    unshown: ClassVar = ("chosen", "pareto")

    conclusion: str
    choice: str
    front: str
    chosen: Chosen
    out: Path
    plot: Path
    page: Path
    table: SweepTable
    pareto: tuple[Placed, ...]


def run(options: SweepOptions, report: Report) -> SweepResult | RaceResult:
    """Upsample and judge every point that is not there yet, and choose the best.

    Raises UsageError, MissingError and MismatchError for what does not fit, before any weights
    are loaded; WouldOverwriteError where options.out is of another sweep; StoppedError, DiskError;
    what `make_applied` and `defaults.apply` raise, once the sweep is complete.
    """
    return start_job(run_in, options, options.judge.compute, report)


def run_in(options: SweepOptions, session: Session) -> SweepResult | RaceResult:
    """Sweep, or race, as one process of a job. Raises what `run` raises."""
    report = session.report
    with ExitStack() as stack:
        sweep = session.decide(lambda: _begin(options, stack, report), _list_compared)
        session.check_shared(sweep.out)
        command = spell_command(options.command, options)
        if options.race:
            return run_race(options, sweep, command, session)
        _fill_missing(options, sweep, command, session)
        points = read_all_points(sweep)
        result = _build_result(sweep, points)
        session.lead(lambda: write_all(sweep, command, points, result.table.metrics))
        session.lead(lambda: write_plot(result.plot, points, result.chosen))
        session.lead(lambda: write_report(sweep.out, report))
        if options.apply:
            session.lead(lambda: apply_chosen(options, sweep, points, report))
    return result


def _fill_missing(options: SweepOptions, sweep: Sweep, command: str, session: Session) -> None:
    """Sample and judge the points that are not there yet."""
    session.lead(lambda: check_points(_list_missing(sweep), session))
    missing = _agree_on_missing(sweep, session)
    there = len(sweep.points) - len(missing)
    if there:
        session.report.say(
            f"{sweep.out}: {there} of {format_count(len(sweep.points), 'point', 'are')} there"
        )
    if missing:
        fill_points(options, sweep, missing, command, session)


def _build_result(sweep: Sweep, points: Sequence[Judged]) -> SweepResult:
    chosen, placed = choose(points), place_points(points)
    return SweepResult(
        conclusion=conclude(points),
        choice=say_how_sure(chosen),
        front=say_front(placed),
        chosen=chosen,
        out=sweep.out,
        plot=sweep.out / PLOT,
        page=sweep.out / REPORT,
        table=SweepTable(join_table(points, chosen), chosen.reference, placed),
        pareto=placed,
    )


def plan(options: SweepOptions, report: Report) -> dict[str, object]:
    """Return the points and what the missing ones cost; nothing is loaded or written.

    Raises what `run` raises before weights are loaded.
    """
    with ExitStack() as stack:
        sweep = _begin(options, stack, report)
        race = (
            begin(options, sweep, spell_command(options.command, options)) if options.race else None
        )
        points = race[0].points if race else _list_missing(sweep)
        check_points(points, plan_session(options.judge.compute, report))
    return {
        "stage": str(sweep.header.directory),
        "out": str(sweep.out),
        **(_estimate_cost_of_race(options, *race) if race else _estimate_cost(options, sweep)),
        "points": [
            {
                **point.labels,
                "samples": len(point.work.samples),
                "judged": point.judged.exists(),
            }
            for point in sweep.points
        ],
    }


def _estimate_cost(options: SweepOptions, sweep: Sweep) -> dict[str, object]:
    """Return what the missing points cost together; sampler and steps where all share them."""
    missing = _list_missing(sweep)
    todo = [point.work for point in missing]
    num = sum(len(work.samples) for work in todo)
    evaluations = sum(len(work.samples) * work.chain.evaluations for work in todo)
    chain, compute = sweep.points[0].work.chain, options.judge.compute
    found = estimate_cost(sweep.header.config, chain, num, compute, evaluations=evaluations)
    varied = {name for axis in options.varied for name in DECIDED[axis]}
    shared = {name: value for name, value in found.items() if name not in varied}
    return {**shared, "disk_bytes": count_new_bytes(missing), "images_judged": num}


def _estimate_cost_of_race(
    options: SweepOptions, racers: Racers, race: RaceFile
) -> dict[str, object]:
    """Return what a race costs at most; nothing that follows from a budget that is a time."""
    budget, work = race.evaluations, racers.points[0].work
    known: dict[str, object] = {}
    if budget:
        compute = options.judge.compute
        known = estimate_cost(
            work.header.config, work.chain, racers.num, compute, evaluations=budget
        )
        disk = count_new_bytes(racers.points)
        known |= {
            "bytes": disk,
            "disk_bytes": disk,
            "rounds": racers.count_rounds(budget),
            "first_round": racers.count_first_images(budget),
        }
    return {**known, "budget": racers.asked, "evaluations_of_the_grid": racers.grid}


def _begin(options: SweepOptions, stack: ExitStack, report: Report) -> Sweep:
    sweep = take_recorded(plan_work(options, stack, report))
    _check_number(options, sweep)
    _tell_schedules(sweep, report)
    return sweep


def _tell_schedules(sweep: Sweep, report: Report) -> None:
    """Say of each way of sampling, whose steps may be an axis, what is kept for it."""
    given: dict[Sampling, list[int]] = {}
    for point in sweep.points:
        given.setdefault(point.work.sampling, []).append(point.s)
    for sampling, s in given.items():
        tell_schedule(sweep.header, sampling, s, report)


def _check_number(options: SweepOptions, sweep: Sweep) -> None:
    """Raise UsageError for a grid of one point with nothing there that it would be compared with.

    `cdm sweep-s` takes it: whoever names one s wants that one judged.
    """
    there = sweep.out.is_dir() and any(NAME.fullmatch(path.name) for path in sweep.out.iterdir())
    if len(sweep.points) == 1 and options.command == SweepOptions.command and not there:
        raise UsageError(
            f"--axis: {name_point(sweep.points[0].labels)} is a single point, compared with "
            "nothing",
            next="more values, or cdm upsample and cdm eval, which judge one",
        )


def _list_missing(sweep: Sweep) -> list[Point]:
    return [point for point in sweep.points if not point.judged.exists()]


def _agree_on_missing(sweep: Sweep, session: Session) -> list[Point]:
    """Return the points that the first process finds missing: another job may judge some by now."""
    mine = [point.samples.name for point in _list_missing(sweep)]
    first = session.world.gather(mine)[0]
    return [point for point in sweep.points if point.samples.name in first]


def _list_compared(sweep: Sweep) -> dict[str, Any]:
    """Return what must be equal in every process; another job may judge points meanwhile."""
    points = [{**point.labels, **point.decided} for point in sweep.points]
    return {**sweep.identity, "points": points}
