"""The loop of `cdm train`: steps, and what is said, logged and saved between them."""

import gc
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from cdm_cli.cascade.saved import find_latest_checkpoint
from cdm_cli.data.batches import TrainBatch, TrainBatches
from cdm_cli.errors import BadInputError
from cdm_cli.jobs.runtime.stop import Stop, end_at_once
from cdm_cli.jobs.training.endings import (
    describe_last_good,
    explain_stop,
    recover_from_divergence,
    require_same_data,
)
from cdm_cli.jobs.training.extras import Extra, is_due
from cdm_cli.jobs.training.files import Saver
from cdm_cli.jobs.training.log import NO_EVENTS, Metrics
from cdm_cli.jobs.training.step import Progress, Trainer, compute_learning_rate
from cdm_cli.startup import measure_part, tell_first_result

DIVERGED_AFTER = 10  # skipped steps in a row


Advance = Callable[[int, str], None]


@dataclass
class Loop:
    """A training run between its first and its last step.

    extras: what else is done after some steps, behind their checkpoints. compiler: compiles the
    network, once it is known how many images fit at a time. check_data: raises BadInputError where
    the data read so far are not what they were; called in every process before a step is saved.
    """

    directory: Path
    trainer: Trainer
    batches: TrainBatches
    stop: Stop
    extras: tuple[Extra, ...] = ()
    compiler: Callable[[], object] | None = None
    check_data: Callable[[], object] = lambda: None
    skipped: int = 0
    last: Progress | None = None
    images_per_second: float | None = None

    def __post_init__(self) -> None:
        self.report = self.trainer.session.report
        self.saver = Saver(self.directory, self.trainer, self.trainer.training.keep)
        self._saved = 0
        self._owed = False
        self._note = ""

    def run(self, done: int) -> None:
        """Do the extras that step `done` still lacks, then take all steps after it.

        After each step: log, save, extras, each where it is due, then stop where that is asked in
        any process. Raises StoppedError, the step saved unless it ends a streak that was not
        finite; DivergedError for ten such steps in a row, found when logging, or where one is the
        last; DiskError where a checkpoint cannot be written; BadInputError for damaged data. In the
        first step a signal ends the program at once.
        """
        steps, late = self.trainer.training.steps, self._list_late(done)
        if done >= steps and not late:
            return
        self._saved = done
        what, shown = f"train {self.directory.name}", min(done, steps)
        with (
            self._open_metrics(done) as metrics,
            self.report.track(what, steps, "steps", shown) as advance,
        ):
            try:
                self._run_extras(late, done, metrics)
                if done < steps:
                    self._take_steps(done, metrics, advance)
            except BadInputError as error:
                self.saver.wait()
                kept = describe_last_good(find_latest_checkpoint(self.directory))
                raise type(error)(error.what, kept=kept, next=error.next) from None

    @contextmanager
    def _open_metrics(self, done: int) -> Generator[Metrics | None]:
        """Open `metrics.jsonl` in the first process."""
        metrics = Metrics(self.directory, done) if self.trainer.world.leads else None
        if metrics is not None and not metrics.has_events and not done:
            self.report.say(NO_EVENTS)
        try:
            yield metrics
        finally:
            if metrics is not None:
                metrics.close()

    def _list_late(self, done: int) -> list[Extra]:
        """Return the extras still due at step `done`: an earlier run stopped within them."""
        last, world = self.trainer.training.steps, self.trainer.world
        return [
            extra
            for extra in self.extras
            if is_due(extra, done, last) and world.any(world.leads and extra.is_missing(done))
        ]

    def _take_steps(self, done: int, metrics: Metrics | None, advance: Advance) -> None:
        training = self.trainer.training
        self._since = done, time.perf_counter()
        batches = self.batches.iterate(done + 1, self.trainer.device)
        try:
            for step in range(done + 1, training.steps + 1):
                if step == done + 1:
                    self._take_first_step(step, batches)
                else:
                    self.trainer.step(step, next(batches))
                self._end_step(step, metrics)
                advance(1, self._note)
                self._run_due_extras(step, metrics)
            self.saver.wait()
            if self._owed:
                self._raise_divergence(training.steps, self.trainer.count_streak())
        finally:
            gc.unfreeze()
            del batches  # ends the thread that reads ahead

    def _take_first_step(self, step: int, batches: Iterator[TrainBatch]) -> None:
        """Take the first step, which compiles and tries kernels; a stop before its end is one now.

        A process that stops so takes no other one into step 2: all wait for each other, once they
        would save. What is there then stays: searching it for garbage takes 0.15 s at a time.
        """
        with end_at_once(), measure_part("first step"):
            batch = next(batches)
            self.trainer.await_first_weights(step, batch)
            if self.compiler is not None:
                self._compile(self.compiler, step, batch)
            self.trainer.step(step, batch)
            self.trainer.count_streak()  # waits for the device
        self.trainer.world.barrier()
        tell_first_result()
        gc.collect()
        gc.freeze()
        self.saver.prepare()

    def _run_due_extras(self, step: int, metrics: Metrics | None) -> None:
        """Do the extras due after a step; images_per_second is of training alone."""
        start = time.perf_counter()
        extras = [
            extra for extra in self.extras if is_due(extra, step, self.trainer.training.steps)
        ]
        self._run_extras(extras, step, metrics)
        (before, then), spent = self._since, time.perf_counter() - start
        self._since = before, then + spent

    def _run_extras(self, extras: Sequence[Extra], step: int, metrics: Metrics | None) -> None:
        """Do some extras; stop behind them where that is asked, in every process."""
        if extras:
            self.trainer.gradients.release()
        for extra in extras:
            extra(step, metrics)
        if extras and self.trainer.device.type == "cuda":
            torch.cuda.empty_cache()  # of another shape than what the next step needs
        if self.trainer.world.any(bool(self.stop.asked)):
            self._save_and_stop(step)

    def _end_step(self, step: int, metrics: Metrics | None) -> None:
        """Tell, log and save what is due after a step."""
        training = self.trainer.training
        self._tell_halving(step)
        if step % training.log_every == 0 or step == training.steps:
            self._log(step, metrics)
        self._owed |= step % training.save_every == 0 or step == training.steps
        if self._owed:
            self._owed = not self._save(step)

    def _compile(self, compiler: Callable[[], object], step: int, batch: TrainBatch) -> None:
        self.trainer.gradients.compute(step, batch)  # the compiler would take minutes for each size
        self._tell_halving(step)
        self.trainer.gradients.release()
        self.report.say("compiling the network at its first step, which takes some minutes")
        compiler()
        self.compiler = None

    def _tell_halving(self, step: int) -> None:
        if said := self.trainer.note_halving(step):
            self.report.say(said)

    def _log(self, step: int, metrics: Metrics | None) -> None:
        trainer = self.trainer
        progress = trainer.read()
        (before, then), now = self._since, time.perf_counter()
        self._since = step, now
        rate = (step - before) * trainer.training.batch_size / max(now - then, 1e-9)
        self.last, self.images_per_second = progress, rate
        self.skipped += progress.skipped
        self._note = f"loss {progress.loss:.4f} · {rate:.0f} images/s"
        if metrics is not None:
            metrics.write(
                {
                    "step": step,
                    "loss": _drop_nan(progress.loss),
                    "lr": compute_learning_rate(trainer.training, step, cosine=trainer.cosine),
                    "grad_norm": _drop_nan(progress.grad_norm),
                    "skipped": progress.skipped,
                    "images_per_second": round(rate, 1),
                }
            )
        if progress.in_a_row >= DIVERGED_AFTER:
            self._raise_divergence(step, progress.in_a_row)

    def _save(self, step: int, *, stopped: bool = False) -> bool:
        """Save a step and return True; within a streak of steps that were not finite, do neither.

        The weights that such a streak began with may be ruined: they must push no good
        checkpoint out. The first step after the streak is saved instead.
        """
        if step == self._saved:
            return True
        if self.trainer.count_streak():
            return False
        require_same_data(self.check_data, self.directory, self.trainer.world)
        if self.trainer.world.leads:
            self.saver.save(step, stopped=stopped)
        self._saved = step
        return True

    def _save_and_stop(self, step: int) -> None:
        saved = self._save(step, stopped=True)
        self.saver.wait()
        self.trainer.world.barrier()
        raise explain_stop(self.stop, self.directory, self.trainer, step, saved=saved)

    def _raise_divergence(self, step: int, in_a_row: int) -> None:
        """End the run; the checkpoint that a streak began with is not good: it gave the streak."""
        self.saver.wait()
        more = step == self.trainer.training.steps and in_a_row < DIVERGED_AFTER
        raise recover_from_divergence(self.directory, self.trainer, step, in_a_row, may_pass=more)


def _drop_nan(value: float) -> float | None:
    """Return a number as JSON knows it; the mean of no steps at all is none."""
    return value if value == value else None
