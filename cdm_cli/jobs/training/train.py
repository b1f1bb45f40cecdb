"""`cdm train`: one stage of a cascade, or a classifier, from a prepared store.

The same command typed again continues where it stopped and ends in the same bytes.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cdm_cli.cascade.fast import compile_net, is_worth_compiling
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.disk import check_room_in
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MissingError, quote
from cdm_cli.jobs.judging.judge import Judge
from cdm_cli.jobs.runtime.device import choose_precision, describe, keep_seeds
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.headers import read_checkpoint_digest
from cdm_cli.jobs.sampling.store_images import tell_kind
from cdm_cli.jobs.training.accuracy import ACCURACY
from cdm_cli.jobs.training.best import read_best
from cdm_cli.jobs.training.cost import estimate_training_cost, tell_memory
from cdm_cli.jobs.training.endings import DataCheck
from cdm_cli.jobs.training.extras import ExtrasPlan, build_extras, count_judgements, plan_extras
from cdm_cli.jobs.training.files import resume
from cdm_cli.jobs.training.first_weights import begin_net
from cdm_cli.jobs.training.log import read_metrics
from cdm_cli.jobs.training.loop import Loop
from cdm_cli.jobs.training.numerics import list_numerics
from cdm_cli.jobs.training.objective import build_objective
from cdm_cli.jobs.training.plan import (
    check_same,
    claim_directory,
    describe_data,
    fit_to_data,
    open_batches,
    plan_from_flags,
    tell_new_fall,
    tell_trained_classes,
)
from cdm_cli.jobs.training.select import open_selection_judge
from cdm_cli.jobs.training.sizes import open_sizes
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.names import DATA, Precision
from cdm_cli.nets.counting import FORWARD_AND_BACKWARD
from cdm_cli.options.training import TrainOptions
from cdm_cli.plans import Plan
from cdm_cli.report import Report


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


class TrainWork(NamedTuple):
    """What a run is decided to be, from headers and flags, before anything is written.

    plan: what is trained, and how. store: the data. extras: what is done between steps. judge: who
    scores --select, None without it. compiled: whether the network is: what --compile says, else
    what all steps decide, not those left.
    """

    options: TrainOptions
    plan: Plan
    store: Store
    extras: ExtrasPlan
    judge: Judge | None
    precision: Precision
    compiled: bool

    def facts(self) -> dict[str, Any]:
        """Return what must be equal in every process."""
        probe = self.extras.probe
        return {
            "plan": self.plan.model_dump(mode="json"),
            "data": self.store.digest,
            "precision": self.precision,
            "judge": self.judge.extractor.digest if self.judge else None,
            "judged samples": probe.identity if probe else None,
        }


def plan(options: TrainOptions, report: Report) -> dict[str, object]:
    """Return what `run` would do and cost, without writing anything.

    Without the data, classes and channels are those of the preset.
    """
    stage_plan, extras = plan_from_flags(options), ExtrasPlan()
    if options.data.exists():
        with ExitStack() as stack:
            stage_plan, _, extras = _plan_on_data(options, stack, report)
    elif options.data != Path(DATA):
        raise MissingError(f"--data {options.data} does not exist", next="cdm prepare SRC makes it")
    else:
        report.say(
            f"{DATA} does not exist, so this cannot be run yet: counting with the preset's classes"
        )
    directory, config = options.directory, stage_plan.model_dump(mode="json")
    device = plan_session(options.compute, report).device
    check_room_in(directory)
    return {
        "stage": directory,
        "preset": stage_plan.preset,
        "kind": stage_plan.stage.kind,
        **estimate_training_cost(stage_plan, device, options.compute.gpus or 1),
        **count_judgements(extras, options, stage_plan.training.steps),
        "stage_config": config["stage"],
        "training_config": config["training"],
    }


def run(options: TrainOptions, report: Report) -> TrainResult:
    """Train the stage, or continue it; one that is done only gets the extras that it lacks.

    Raises MismatchError where the data do not fit, WouldOverwriteError where the name belongs to
    another configuration, StoppedError after a signal (`Loop.run` says what is saved) or where
    another job trains it, DivergedError, DiskError, MemoryFloorError, and BadInputError for
    damaged data.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: TrainOptions, session: Session) -> TrainResult:
    """Train as one process of a job: plan, claim the directory, load the last checkpoint, go on."""
    device, report, directory = session.device, session.report, options.directory
    with ExitStack() as stack:
        stack.enter_context(keep_seeds(device))
        work = session.decide(lambda: plan_work(options, device, stack, report), TrainWork.facts)
        data = describe_data(work.store)
        tell_trained_classes(work.store, work.plan, data.without_images, report)
        old = session.lead(lambda: claim_directory(directory, work.plan, data, stack))
        trainer = _build_trainer(work, session, stack)
        done = session.decide(
            lambda: resume(directory, trainer, report.say),
            lambda done: _list_resumed_facts(work, done),
            next=f"copy {quote(directory)} from the host with the newest checkpoint to the "
            "others, or keep it in a directory that all hosts share",
        )
        _tell_start(work, done, session)
        tell_new_fall(old, work.plan, done, report)
        stop = Stop()
        loop = Loop(
            directory=directory,
            trainer=trainer,
            batches=open_batches(work.plan, work.store, session.world),
            stop=stop,
            extras=build_extras(work.extras, options, trainer, work.judge, lambda: stop.asked),
            compiler=partial(compile_net, trainer.objective.net) if work.compiled else None,
            check_data=DataCheck(work.store, report),
        )
        with stop:  # until here nothing was learned that a stop would keep
            loop.run(done)
        return _build_result(work, loop, done)


def plan_work(
    options: TrainOptions, device: torch.device, stack: ExitStack, report: Report
) -> TrainWork:
    """Decide all that headers and flags decide. The stack keeps the data open."""
    stage_plan, store, extras = _plan_on_data(options, stack, report)
    judge = open_selection_judge(options, extras.probe, device) if extras.probe else None
    training, compiled = stage_plan.training, options.compute.compile
    if compiled is None:
        evaluations = FORWARD_AND_BACKWARD * training.batch_size * training.steps
        compiled = is_worth_compiling(stage_plan.stage, device, evaluations)
    precision = choose_precision(training.precision, device)
    return TrainWork(options, stage_plan, store, extras, judge, precision, compiled)


def _plan_on_data(
    options: TrainOptions, stack: ExitStack, report: Report
) -> tuple[Plan, Store, ExtrasPlan]:
    """Open the data, fit what the flags ask for to them, and compare it with the run there is."""
    asked = plan_from_flags(options)
    store = stack.enter_context(open_store(options.data))
    store.require_finished()
    stage_plan = fit_to_data(asked, store, options)
    check_same(options.directory, stage_plan, describe_data(store))
    tell_kind(store, report)
    return stage_plan, store, plan_extras(options, stage_plan, store, stack, report)


def _build_trainer(work: TrainWork, session: Session, stack: ExitStack) -> Trainer:
    """Build network, average and optimizer on the device; the stack ends a thread that draws."""
    stage, training, precision = work.plan.stage, work.plan.training, work.precision
    device, classes = session.device, work.store.classes
    tell_memory(work.plan, device, session.world.size, session.report)
    net, weights = begin_net(stage, training.seed, device, stack)
    objective = build_objective(stage, classes, training, device, precision, net)
    cosine, exact = isinstance(stage, ClassifierConfig), training.virtual_ranks > 0
    numerics = list_numerics(session, precision, compiled=work.compiled, exact=exact)
    trainer = Trainer(
        objective, training, session, cosine=cosine, numerics=numerics, weights=weights
    )
    trainer.gradients.sizes = open_sizes(work.plan, precision, session)
    return trainer


def _list_resumed_facts(work: TrainWork, done: int) -> dict[str, Any]:
    """Return what must be equal in every process that goes on after step `done`."""
    best = read_best(work.options.directory) if work.options.select else None
    return {
        "step resumed from": done,
        "weights there": read_checkpoint_digest(work.options.directory, done),
        "best score": best.text() if best else None,
    }


def _tell_start(work: TrainWork, done: int, session: Session) -> None:
    """Say where a run begins, on what, and that images are mirrored."""
    training, directory, report = work.plan.training, work.options.directory, session.report
    if done >= training.steps:
        report.say(f"{directory} is trained to step {done} already")
        return
    several = [f"{session.world.size} processes"] if session.world.size > 1 else []
    exact = ["exact"] if training.virtual_ranks else []
    where = ", ".join([describe(session.device), work.precision, *several, *exact])
    report.say(f"{directory}: {'from step ' + str(done) if done else 'new'}, on {where}")
    if training.flip:
        report.say("half of the images of each step are mirrored left to right (--no-flip: none)")


def _build_result(work: TrainWork, loop: Loop, done: int) -> TrainResult:
    steps = max(done, work.plan.training.steps)
    best = read_best(work.options.directory) if work.options.select else None
    return TrainResult(
        stage=work.options.directory,
        steps=steps,
        loss=loop.last.loss if loop.last else None,
        accuracy=read_metrics(work.options.directory, ACCURACY).get(steps),
        best_step=best.step if best else None,
        best_fid=best.value if best else None,
        skipped_steps=loop.skipped,
        images_per_second=loop.images_per_second,
    )
