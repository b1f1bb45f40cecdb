"""`cdm train`: one stage of a cascade, or a classifier, from a prepared store.

The same command typed again continues where it stopped and ends in the same bytes.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.checkpoint import read_stage_file, write_stage_file
from cdm_cli.cascade.fast import compile_net, worth_compiling
from cdm_cli.cascade.stagefile import STAGE_FILE
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.disk import check_room, find_existing
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MissingError, quote
from cdm_cli.jobs.judging.judge import Judge
from cdm_cli.jobs.runtime.device import choose_precision, describe
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.classes import tell_empty
from cdm_cli.jobs.sampling.headers import checkpoint_digest
from cdm_cli.jobs.training.accuracy import ACCURACY
from cdm_cli.jobs.training.cost import cost
from cdm_cli.jobs.training.data import Unchanged, batches_of
from cdm_cli.jobs.training.extras import Turns, extras_of, plan_turns, select_cost
from cdm_cli.jobs.training.files import resume
from cdm_cli.jobs.training.log import read_metrics
from cdm_cli.jobs.training.loop import Loop
from cdm_cli.jobs.training.numerics import numerics_of
from cdm_cli.jobs.training.objective import (
    ClassifierObjective,
    StageObjective,
    begin_objective,
)
from cdm_cli.jobs.training.plan import (
    check_same,
    data_info,
    fit_to_data,
    plan_of_flags,
    stage_directory,
)
from cdm_cli.jobs.training.select import read_best, selection_judge
from cdm_cli.jobs.training.sizes import known_sizes
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.names import DATA, Precision
from cdm_cli.nets.counting import FORWARD_AND_BACKWARD
from cdm_cli.options.training import TrainOptions
from cdm_cli.plans import Plan, StageFile, TrainingConfig
from cdm_cli.report import Report

MIRRORED = "half of the images of each step are mirrored left to right (--no-flip: none)"


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to; None where no step was taken, or for another kind of stage.

    loss: mean over the last steps that were logged. accuracy: of a classifier, on val. best_…:
    what --select kept in best.safetensors.
    """

    stage: Path
    steps: int
    loss: float | None = None
    accuracy: float | None = None
    best_step: int | None = None
    best_fid: float | None = None
    skipped_steps: int = 0
    images_per_second: float | None = None


def plan(options: TrainOptions, report: Report) -> dict[str, object]:
    """Return what `run` would do and cost, without writing anything.

    Without the data, classes and channels are those of the preset.
    """
    directory = stage_directory(options)
    made, turns = plan_of_flags(options), Turns()
    if options.data.exists():
        with ExitStack() as stack:
            store = stack.enter_context(open_store(options.data))
            made = fit_to_data(made, store, options)
            check_same(directory, made, data_info(store))
            turns = plan_turns(options, made, store, directory, stack)
            store.require_finished()
    elif options.data != Path(DATA):
        raise MissingError(f"--data {options.data} does not exist", next="cdm prepare SRC makes it")
    else:
        report.say(
            f"{DATA} does not exist, so this cannot be run yet: counting with the preset's classes"
        )
    config = made.model_dump(mode="json")
    device = plan_session(options.compute, report).device
    check_room(find_existing(directory) / STAGE_FILE, 0)
    return {
        "stage": directory,
        "preset": made.preset,
        "kind": made.stage.kind,
        **cost(made, device, options.compute.gpus or 1),
        **select_cost(turns, options, made.training.steps),
        "stage_config": config["stage"],
        "training_config": config["training"],
    }


def run(options: TrainOptions, report: Report) -> TrainResult:
    """Train the stage, or continue it; returns at once where it is done already.

    Raises MismatchError where the data do not fit, WouldOverwriteError where the name belongs
    to another configuration, StoppedError after a signal (all is saved), DivergedError,
    DiskError, MemoryFloorError, and BadInputError for damaged data.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: TrainOptions, session: Session) -> TrainResult:
    """Train as one process of a job: decide, compare with the others, claim the directory, go."""
    directory, device = stage_directory(options), session.device
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        begun = session.decide(lambda: _begin(options, device, stack), _deciding)
        made, store = begun.made, begun.store
        if empty := data_info(store).without_images:
            session.report.say(f"{options.data}: {tell_empty(store.classes, empty)}")

        def claim() -> None:
            stack.enter_context(hold_lock(directory))
            file = StageFile(cdm_version=__version__, plan=made, data=data_info(store))
            if (directory / STAGE_FILE).is_file():
                old = read_stage_file(directory)
                kept = {"applied": old.applied, "in_force": old.in_force}
                file = file.model_copy(update=kept)
            write_stage_file(directory, file)

        session.lead(claim)
        return _train(options, begun, session, stack)


class Begun(NamedTuple):
    """What a run is decided to be before anything is written."""

    made: Plan
    store: Store
    turns: Turns
    judge: Judge | None
    precision: Precision


def _begin(options: TrainOptions, device: torch.device, stack: ExitStack) -> Begun:
    """Decide all that headers and flags decide. The stack keeps the data open."""
    asked = plan_of_flags(options)
    store = stack.enter_context(open_store(options.data))
    store.require_finished()
    made = fit_to_data(asked, store, options)
    directory = stage_directory(options)
    check_same(directory, made, data_info(store))
    turns = plan_turns(options, made, store, directory, stack)
    judge = selection_judge(options, device)
    return Begun(made, store, turns, judge, choose_precision(made.training.precision, device))


def _deciding(begun: Begun) -> dict[str, Any]:
    """Return what must be equal in every process."""
    judge, probe = begun.judge, begun.turns.probe
    return {
        "plan": begun.made.model_dump(mode="json"),
        "data": begun.store.digest,
        "precision": begun.precision,
        "judge": judge.extractor.digest if judge else None,
        "judged samples": probe.identity if probe else None,
    }


def _train(options: TrainOptions, begun: Begun, session: Session, stack: ExitStack) -> TrainResult:
    made, store, device, report = begun.made, begun.store, session.device, session.report
    directory, training, precision = stage_directory(options), made.training, begun.precision
    objective, weights = begin_objective(
        made.stage, store.classes, training, device, precision, stack
    )
    cosine = isinstance(made.stage, ClassifierConfig)
    compiler = _compiler(objective, made, options, device)
    exact = training.virtual_ranks > 0
    numbers = numerics_of(session, precision, compiled=compiler is not None, exact=exact)
    trainer = Trainer(objective, training, session, cosine=cosine, numerics=numbers)
    trainer.gradients.sizes = known_sizes(made, precision, session)
    done = session.decide(
        lambda: resume(directory, trainer, report.say),
        lambda done: _identify_resume(options, directory, done),
        next=f"copy {quote(directory)} from the host with the newest checkpoint to the others, or "
        "keep it in a directory that all hosts share",
    )
    if weights is not None and done:
        weights.give_up()
    report.say(_describe_start(directory, done, training, precision, session))
    if training.flip and done < training.steps:
        report.say(MIRRORED)
    stop = Stop()
    extras = extras_of(
        begun.turns, options, made, directory, trainer, begun.judge, lambda: stop.asked
    )
    loop = Loop(
        directory=directory,
        trainer=trainer,
        batches=batches_of(made, store, session.world),
        stop=stop,
        extras=extras,
        compiler=compiler,
        weights=None if done else weights,
        unchanged=Unchanged(store, report),
    )
    with stop:  # until here nothing was learned that a stop would keep
        loop.run(done)
    best = read_best(directory) if options.select else None
    return TrainResult(
        stage=directory,
        steps=max(done, training.steps),
        loss=loop.last.loss if loop.last else None,
        accuracy=read_metrics(directory, ACCURACY).get(max(done, training.steps)),
        best_step=best.step if best else None,
        best_fid=best.value if best else None,
        skipped_steps=loop.skipped,
        images_per_second=loop.images_per_second,
    )


def _identify_resume(options: TrainOptions, directory: Path, done: int) -> dict[str, Any]:
    """Return what must be equal in every process that goes on after step `done`."""
    best = read_best(directory) if options.select else None
    return {
        "step resumed from": done,
        "weights there": checkpoint_digest(directory, done),
        "best score": best.text() if best else None,
    }


def _describe_start(
    directory: Path, done: int, training: TrainingConfig, precision: str, session: Session
) -> str:
    several = [f"{session.world.size} processes"] if session.world.size > 1 else []
    exact = ["exact"] if training.virtual_ranks else []
    where = ", ".join([describe(session.device), precision, *several, *exact])
    if done >= training.steps:
        return f"{directory} is trained to step {done} already"
    return f"{directory}: {'from step ' + str(done) if done else 'new'}, on {where}"


def _compiler(
    objective: StageObjective | ClassifierObjective,
    made: Plan,
    options: TrainOptions,
    device: torch.device,
) -> Callable[[], object] | None:
    """Return what compiles the network where that pays; nothing that a resume changes decides."""
    wanted, training = options.compute.compile, made.training
    evaluations = FORWARD_AND_BACKWARD * training.batch_size * training.steps
    if not (worth_compiling(made.stage, device, evaluations) if wanted is None else wanted):
        return None
    return lambda: compile_net(objective.net)
