"""The loop of `cdm train`: steps, and what is said, logged and saved between them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from cdm_cli.cascade.batch import Batch
from cdm_cli.cascade.checkpoint import latest_checkpoint
from cdm_cli.errors import DivergedError, StoppedError
from cdm_cli.jobs.training_files import Metrics, Saver
from cdm_cli.jobs.training_objective import images_of
from cdm_cli.jobs.training_step import Progress, Trainer, learning_rate
from cdm_cli.jobs.training_stop import Stop
from cdm_cli.options import Report

DIVERGED_AFTER = 10  # skipped steps in a row


class Batches(Protocol):
    """The data of a step depend on its number alone."""

    def iterate(self, start_step: int, device: torch.device) -> Iterator[Batch]:
        """Yield this process's share of the batches of start_step, start_step + 1, …"""
        ...


Extra = Callable[[int], None]


@dataclass
class Loop:
    """A training run between its first and its last step.

    extras: what else happens after some steps, as (every, call with the step).
    """

    directory: Path
    trainer: Trainer
    batches: Batches
    stop: Stop
    report: Report
    extras: tuple[tuple[int, Extra], ...] = ()
    skipped: int = 0
    last: Progress | None = None
    images_per_second: float | None = None

    def __post_init__(self) -> None:
        self.saver = Saver(self.directory, self.trainer, self.trainer.training.keep)
        self._saved = 0
        self._note = ""

    def run(self, done: int) -> None:
        """Take the steps after `done`; save at the end.

        Raises StoppedError once a signal has come and the step is saved, DivergedError, and
        DiskError where a checkpoint cannot be written.
        """
        training = self.trainer.training
        self._saved, self._since = done, (done, time.perf_counter())
        metrics = Metrics(self.directory, done) if self.trainer.world.leads else None
        batches = self.batches.iterate(done + 1, self.trainer.device)
        try:
            with self.report.track(
                f"train {self.directory.name}", training.steps - done, "steps"
            ) as advance:
                for step in range(done + 1, training.steps + 1):
                    self._step(step, next(batches), metrics)
                    advance(1, self._note)
            self._save(training.steps)
            self.saver.wait()
        finally:
            del batches  # ends the thread that reads ahead
            if metrics is not None:
                metrics.close()

    def _step(self, step: int, batch: Batch, metrics: Metrics | None) -> None:
        trainer, training = self.trainer, self.trainer.training
        trainer.step(step, images_of(batch))
        self._tell_halving()
        if step % training.log_every == 0 or step == training.steps:
            self._log(step, metrics)
        if step % training.save_every == 0:
            self._save(step)
        for every, extra in self.extras:
            if every and step % every == 0:
                extra(step)
        if trainer.world.any(bool(self.stop.asked)):
            self._stopped(step)

    def _tell_halving(self) -> None:
        if self.trainer.halved:
            self.trainer.halved = False
            self.report.say(
                f"out of device memory: the batch of {self.trainer.training.batch_size} is now "
                f"taken {self.trainer.micro_batch} images at a time; the result is the same"
            )

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
                    "loss": _number(progress.loss),
                    "lr": learning_rate(trainer.training, step, cosine=trainer.cosine),
                    "grad_norm": _number(progress.grad_norm),
                    "skipped": progress.skipped,
                    "images_per_second": round(rate, 1),
                }
            )
        if progress.in_a_row >= DIVERGED_AFTER:
            self._diverged(step, progress.in_a_row)

    def _save(self, step: int) -> None:
        if step != self._saved and self.trainer.world.leads:
            self.saver.save(step)
        self._saved = step

    def _stopped(self, step: int) -> None:
        self._save(step)
        self.saver.wait()
        self.trainer.world.barrier()
        raise StoppedError(
            f"stopped by {self.stop.asked or 'another process'} after step {step} of "
            f"{self.trainer.training.steps}",
            kept=f"{self.directory}/checkpoints holds that step",
            next="run the same command again, it continues there",
        )

    def _diverged(self, step: int, in_a_row: int) -> None:
        self.saver.wait()
        good = latest_checkpoint(self.directory)
        raise DivergedError(
            f"{in_a_row} steps in a row up to step {step} had a loss or gradient that is not "
            "finite; none of them touched the weights",
            kept=f"the last good checkpoint is {good}" if good else "no checkpoint was made yet",
            next=f"a lower --set training.lr (now {self.trainer.training.lr:g}) under another NAME",
        )


def _number(value: float) -> float | None:
    """Return a number as JSON knows it; the mean of no steps at all is none."""
    return value if value == value else None
