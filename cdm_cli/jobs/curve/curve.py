"""`cdm eval checkpoints`: the FID of every saved state of a stage, on the same samples' noise.

`cdm train --select` keeps the best weights while it goes on; this judges afterwards what is
still there (`training.keep` says how many checkpoints are). What has been judged is kept, so
the same command continues, and joins checkpoints that were saved since.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.cascade.stage import Stage
from cdm_cli.data.disk import make_directory
from cdm_cli.data.lock import hold_directory
from cdm_cli.errors import MissingError, NotFiniteError, StoppedError
from cdm_cli.jobs.curve.plan import CurveWork, plan_work
from cdm_cli.jobs.curve.table import (
    PLOT,
    CurvePoint,
    SavedWeights,
    add_point,
    compare_points,
    make_point,
    make_table,
    name_point,
    read_curve,
    write_points,
    write_shown,
)
from cdm_cli.jobs.judging.panel import Panel, open_panel
from cdm_cli.jobs.judging.probe_score import identify_judgement, judge_probe
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.cost import estimate_cost
from cdm_cli.jobs.sampling.numerics import Numerics, choose_numerics
from cdm_cli.jobs.sampling.probe import check_shares, draw_probe
from cdm_cli.jobs.sampling.ready import load_fast_stage, take_weights
from cdm_cli.jobs.sampling.schedule_file import tell_schedule
from cdm_cli.metrics.comparisons import list_names
from cdm_cli.metrics.table import MetricTable
from cdm_cli.names import LEAST_JUDGED
from cdm_cli.options.judging import CurveOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class CurveResult:
    """What was found. table: every point of the directory, those of earlier runs among them.

    samples: how those of each point were made. best, best_step, best_fid: the lowest FID, which
    is certain to be the best only if `standing` says so; they are for scripts.
    """

    unshown: ClassVar = ("best", "best_step", "best_fid")

    out: Path
    plot: Path
    conclusion: str
    lowest: str
    standing: str | None
    best: str
    best_step: int
    best_fid: float
    samples: dict[str, Any]
    table: MetricTable


def run(options: CurveOptions, report: Report) -> CurveResult:
    """Judge every state that is not judged yet.

    Raises UsageError, MissingError and MismatchError for what headers show; WouldOverwriteError
    where options.out is of another curve; StoppedError, also where another job works in it;
    MemoryFloorError, DiskError.
    """
    return start_job(run_in, options, options.judge.compute, report)


def run_in(options: CurveOptions, session: Session) -> CurveResult:
    """Judge as one process of a job."""
    with ExitStack() as stack:
        work = session.decide(lambda: plan_work(options, stack, session.report), _list_compared)
        check_shares(work.probe, session.world)
        tell_few(options.num, session.report)
        tell_schedule(work.header, options.sampling, work.probe.given_s, session.report)
        resolution = work.probe.config.model.resolution
        panel = open_panel(options.judge, resolution, session, features=False)
        config = work.header.config
        identity = {"stage": compute_config_digest(config), **identify_judgement(work.probe, panel)}
        session.lead(lambda: _claim(options.out, stack))
        points = session.decide(
            lambda: read_curve(options.out, identity, config),
            lambda points: {**identity, "states judged": [p.saved.model_dump() for p in points]},
        )
        if missing := _list_missing(work, points):
            points = _fill(options, work, missing, points, identity, panel)
        session.lead(lambda: write_shown(options.out, points))
    return _build_result(options, work, points)


def _list_missing(work: CurveWork, points: Sequence[CurvePoint]) -> list[SavedWeights]:
    """Return the states that no point judges."""
    there = {point.saved.weights: point.saved for point in points}
    return [state for state in work.states if there.get(state.weights) != state]


def _build_result(
    options: CurveOptions, work: CurveWork, points: Sequence[CurvePoint]
) -> CurveResult:
    found, table = compare_points(points), make_table(points)
    best = found.lowest.extra["weights"]
    if left := [state.weights for state in _list_missing(work, points)]:
        table.note(f"without {list_names(left)}: gone meanwhile, or of images that are not finite")
    return CurveResult(
        out=options.out,
        plot=options.out / PLOT,
        conclusion=found.conclude(name_point),
        lowest=f"{best}, FID {found.lowest.value:.4g}",
        standing=found.standing,
        best=best,
        best_step=found.lowest.extra["step"],
        best_fid=found.lowest.value,
        samples=work.probe.list_settings(),
        table=table,
    )


def _claim(out: Path, stack: ExitStack) -> None:
    """Make the directory of a curve and lock it: two jobs would write over each other's points."""
    make_directory(out)
    stack.enter_context(hold_directory(out, alone=True))


def tell_few(num: int, report: Report) -> None:
    """Say, before anything is drawn, that so few samples leave no error to speak of."""
    if num < LEAST_JUDGED:
        report.say(
            f"--num {num}: errors come from ten groups of two samples each at least; with fewer "
            f"than {LEAST_JUDGED} samples they, and the verdicts, mean little"
        )


def _list_compared(work: CurveWork) -> dict[str, Any]:
    """Return what must be equal in every process."""
    states = [state.model_dump() for state in work.states]
    return {
        "stage": compute_config_digest(work.header.config),
        **work.probe.identity,
        "states": states,
    }


def plan(options: CurveOptions, report: Report) -> dict[str, object]:
    """Return what would be judged and what that would cost; nothing is loaded or written."""
    with ExitStack() as stack:
        work = plan_work(options, stack, report)
    plan_session(options.judge.compute, report)
    tell_few(options.num, report)
    tell_schedule(work.header, options.sampling, work.probe.given_s, report)
    num = len(work.states) * work.probe.num
    return {
        "stage": str(work.header.directory),
        "out": str(options.out),
        "checkpoints": [state.weights for state in work.states],
        **work.probe.list_settings(),
        **estimate_cost(work.header.config, work.probe.chain, num, options.judge.compute),
        "disk_bytes": 0,  # images are judged and forgotten
    }


def _fill(
    options: CurveOptions,
    work: CurveWork,
    missing: Sequence[SavedWeights],
    points: list[CurvePoint],
    identity: dict[str, Any],
    panel: Panel,
) -> list[CurvePoint]:
    """Judge what is missing, and write after each state; pass over states that cannot be judged.

    Raises NotFiniteError or StoppedError where no state is judged at all.
    """
    refused = None
    session, report = panel.session, panel.session.report
    chosen = choose_numerics(work.header.config, session, len(missing) * work.probe.evaluations)
    stage = _load_first(options, work, missing, chosen, session)
    with Stop() as stop:
        for number, state in enumerate(missing, 1):
            report.say(f"eval checkpoints: {number} of {len(missing)}: {state.weights}")
            if not session.world.agree(take_state(stage, work.header.directory, state)):
                report.say(f"{state.weights} was removed or replaced meanwhile: passed over")
                continue
            try:
                table = _judge(work, state, stage, chosen, panel, stop)
            except NotFiniteError as error:
                refused = error
                report.say(f"{state.weights} is not judged: {error.what}")
                continue
            points = add_point(points, make_point(state, table))
            session.lead(partial(write_points, options.out, identity, points))
            report.say(f"eval checkpoints: {state.weights}: FID {table.rows[0].value:.4g}")
    if not points:
        raise refused or _overtaken_error(work)
    return points


def _load_first(
    options: CurveOptions, work: CurveWork, missing: Sequence[SavedWeights], chosen: Numerics,
    session: Session,
) -> Stage:  # fmt: skip
    """Load a stage with weights of the first state that is still there."""
    for state in missing:
        sampling = replace(options.sampling, weights=state.weights)
        with suppress(MissingError):
            return load_fast_stage(work.header, sampling, chosen, session)
    raise _overtaken_error(work)


def _overtaken_error(work: CurveWork) -> StoppedError:
    return StoppedError(
        f"{work.header.directory}: every state was removed or replaced before it was judged: "
        "its training goes on",
        next="the same command takes those that are there now",
    )


def take_state(stage: Stage, directory: Path, state: SavedWeights) -> bool:
    """Load the weights of a state into a stage; return False if their file is gone or has changed.

    A running training may remove or replace them.
    """
    try:
        return take_weights(stage, directory, state.weights) == state.sha256
    except MissingError:
        return False


def _judge(
    work: CurveWork,
    state: SavedWeights,
    stage: Stage,
    numerics: Numerics,
    panel: Panel,
    stop: Stop,
) -> MetricTable:
    probe, session = work.probe, panel.session
    images = draw_probe(
        probe, stage, numerics.batch_size, session, find_stop=lambda: stop.asked,
        what=f"draw {state.weights}",
    )  # fmt: skip
    if images is None:
        kept = "the checkpoints judged before are kept"
        raise stop.error(kept, where=f" at {state.weights}")
    return judge_probe(panel, probe, images, state.weights)
