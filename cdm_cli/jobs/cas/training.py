"""From a training set to counts of right answers: train, save, test, and keep the outcome.

A training directory holds checkpoints while it is trained and `outcome.json` alone when it is
tested; whoever finds that file has nothing left to do.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from cdm_cli.cascade.saved import CHECKPOINTS, list_checkpoints, remove_checkpoint
from cdm_cli.cascade.snapshot import load_checkpoint, save_checkpoint
from cdm_cli.cascade.stagefile import read_settings, write_settings
from cdm_cli.data import disk
from cdm_cli.errors import (
    BadInputError,
    CdmError,
    DivergedError,
    MismatchError,
    MissingError,
)
from cdm_cli.jobs.cas.augment import crop_centre
from cdm_cli.jobs.cas.plan import CasWork, TrainingSet, make_key
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.judging.images import read_batches
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.headers import read_checkpoint_digest
from cdm_cli.metrics.arithmetic import use_full_float32
from cdm_cli.metrics.class_accuracy import ClassAccuracy
from cdm_cli.nets.memory import Halving
from cdm_cli.report import Report
from cdm_cli.settings import Settings

OUTCOME = "outcome.json"
OUTCOME_LIMIT = 2**28
LOG_EVERY = 50
KEEP = 2
SAVE_SECONDS = 300.0  # from one checkpoint to the next; what a kill costs at most


class Outcome(Settings):
    """How a trained classifier answered: tested images [K], and right answers [2][K]."""

    key: str
    loss: float | None
    skipped: int
    tested: tuple[int, ...]
    right: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def accuracy(self) -> ClassAccuracy:
        """The counts."""
        return ClassAccuracy.of(self.tested, self.right)


def train_and_test(
    work: CasWork, training: TrainingSet, directory: Path, stop: Stop, session: Session
) -> Outcome:
    """Train and test, or continue to; keep the outcome and nothing else.

    Raises StoppedError once asked to stop (all is saved), DivergedError, DiskError,
    BadInputError for samples that are damaged.
    """
    fit = Fit(work.recipe, session.device, session.world)
    train(fit, training, directory, stop, session)
    fit.release()
    accuracy = measure_accuracy(fit, work, session, training.name)
    right = tuple(tuple(row.tolist()) for row in accuracy.right.values())
    outcome = Outcome(
        key=make_key(work, training), loss=fit.loss, skipped=fit.skipped,
        tested=tuple(accuracy.tested.tolist()), right=(right[0], right[1]),
    )  # fmt: skip
    session.lead(lambda: _keep(directory, outcome))
    return outcome


def read_outcome(directory: Path, key: str, say: Callable[[str], object]) -> Outcome | None:
    """Return the outcome in a directory; None if there is none, or one of another key.

    A damaged one is none, which is said.
    """
    try:
        found = read_settings(Outcome, directory / OUTCOME, OUTCOME_LIMIT)
    except MissingError:
        return None
    except BadInputError as error:
        say(f"{error.what}; training anew")
        return None
    return found if found.key == key else None


def _keep(directory: Path, outcome: Outcome) -> None:
    write_settings(directory / OUTCOME, outcome)
    remove_checkpoints(directory)


def remove_checkpoints(directory: Path) -> None:
    """Remove the checkpoints of a training whose outcome is written; finish a killed removal.

    Each its manifest first, so that none is ever half there. Where they cannot be removed they
    stay: the outcome counts.
    """
    with suppress(CdmError):
        for path in list_checkpoints(directory):
            remove_checkpoint(path)
        disk.remove_tree(directory / CHECKPOINTS)


def train(fit: Fit, training: TrainingSet, directory: Path, stop: Stop, session: Session) -> None:
    """Take the steps that are left; save every five minutes, on a stop, and at the end.

    Raises StoppedError, DivergedError, DiskError, and BadInputError for damaged samples.
    """
    steps = fit.recipe.steps
    done = session.decide(
        lambda: resume_fit(fit, directory, session.report),
        lambda done: {
            "step resumed from": done,
            "weights there": read_checkpoint_digest(directory, done),
        },
    )
    batch = training.take_batches(fit.recipe, fit.world).iterate(done + 1, fit.device)
    saved = time.monotonic()
    try:
        with session.report.track(
            f"cas: train on {training.name}", steps, "steps", done
        ) as advance:
            for step in range(done + 1, steps + 1):
                fit.step(step, next(batch))
                if step % LOG_EVERY == 0 or step == steps:
                    _check_course(fit, step, directory)
                advance(1, "" if fit.loss is None else f"loss {fit.loss:.4f}")
                asked = fit.world.any(bool(stop.asked))
                if asked or step == steps or time.monotonic() - saved > SAVE_SECONDS:
                    training.part.recheck()
                    _save(fit, directory, step)
                    saved = time.monotonic()
                if asked:
                    fit.world.barrier()  # whoever ended before it is saved would end this job
                    where = f" after step {step} of {steps}"
                    raise stop.error(f"{directory} holds that step", where=where)
    finally:
        del batch  # ends the thread that reads ahead


def resume_fit(fit: Fit, directory: Path, report: Report) -> int:
    """Load the newest whole checkpoint into a fit; return its step, 0 without one.

    Damaged checkpoints are reported, and the one before is tried.
    """
    for path in reversed(list_checkpoints(directory)):
        try:
            snapshot = load_checkpoint(path, fit.take_snapshot(0))
        except (BadInputError, MissingError, MismatchError) as error:
            report.say(f"{error.what}; going further back")
            continue
        fit.restore(snapshot)
        report.say(f"{directory}: from step {snapshot.step} of {fit.recipe.steps}")
        return snapshot.step
    return 0


def _check_course(fit: Fit, step: int, directory: Path) -> None:
    fit.read()
    if fit.loss is None:
        raise DivergedError(
            f"no step of the last up to {step} had a finite loss and gradient",
            kept=f"none of them touched the weights; {directory} holds the steps before",
            next=f"a lower --lr (now {fit.recipe.lr:g}), with another -o",
        )


def _save(fit: Fit, directory: Path, step: int) -> None:
    if fit.world.leads:
        save_checkpoint(directory, fit.take_snapshot(step), keep=KEEP)


def measure_accuracy(fit: Fit, work: CasWork, session: Session, name: str) -> ClassAccuracy:
    """Test the classifier on every validation image, in float32, each process its share.

    Raises DivergedError, in every process, where some logit is not finite.
    """
    fit.share_statistics()
    fit.net.eval()
    accuracy, bad = ClassAccuracy(len(work.classes)), torch.zeros((), device=session.device)
    net = Halving[torch.Tensor](fit.net, session.device, session.report.say)
    with (
        use_full_float32(),
        session.report.track(f"cas: test after {name}", work.val.num, "images") as advance,
    ):
        for places, batch in read_batches(work.val, session):
            x = crop_centre(batch.to(session.device), work.recipe.crop)
            y = torch.from_numpy(work.val.labels[places]).to(session.device)
            logits = net(x)
            bad += ~logits.isfinite().all()
            accuracy.add(logits, y)
            advance(len(places) * session.world.size, "")
    counts = accuracy.tensor().to(session.device)
    session.world.sum_([counts], bad)
    if bad:
        raise DivergedError(
            f"the classifier of {name} gives logits that are not finite",
            kept="nothing was counted",
            next=f"a lower --lr (now {fit.recipe.lr:g}), with another -o",
        )
    tested, *right = counts.long().tolist()
    return ClassAccuracy.of(tested, right)
