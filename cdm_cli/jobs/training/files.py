"""The checkpoints of a training run: written in the background, and loaded where it resumes."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import (
    CHECKPOINTS,
    EMA,
    list_checkpoints,
    name_checkpoint,
    remove_leftovers,
)
from cdm_cli.cascade.snapshot import (
    Snapshot,
    load_checkpoint,
    remove_older,
    save_checkpoint,
    take_ema,
)
from cdm_cli.data import disk
from cdm_cli.data.memory import measure_free_memory
from cdm_cli.errors import BadInputError, CdmError, MissingError
from cdm_cli.jobs.training.host_copy import HostCopy, count_bytes
from cdm_cli.jobs.training.numerics import compare_numerics
from cdm_cli.jobs.training.step import State, Trainer
from cdm_cli.sentences import find_fault_in

MOST_OF_FREE = 0.8  # of the free memory of the host, for a copy of the state


class Saver:
    """Writes checkpoints; on a CUDA device in the background, while training goes on."""

    def __init__(self, directory: Path, trainer: Trainer, keep: int) -> None:
        self._directory, self._trainer, self._keep = directory, trainer, keep
        self._copy: HostCopy | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def prepare(self) -> None:
        """Reserve memory of the host for a copy of the state that a CUDA device holds after a step.

        Does nothing on a CPU, or in another process than the first. Where the host has too little
        free, training waits while checkpoints are written from the device; a message says so.
        """
        if not self._trainer.world.leads or self._trainer.device.type != "cuda":
            return
        parts = take_snapshot(self._trainer, 0).parts
        size, free = count_bytes(parts), measure_free_memory()
        if size <= free * MOST_OF_FREE:
            self._copy = HostCopy(parts)
        else:
            self._trainer.session.report.say(
                f"a copy of the state takes {size / 2**30:.1f} GiB of the host's memory, of which "
                f"{free / 2**30:.1f} GiB are free: training waits while checkpoints are written"
            )

    def save(self, step: int, *, stopped: bool = False) -> None:
        """Write the checkpoint of a step, and link its averaged weights as `ema.safetensors`.

        A checkpoint has the weights, their average, the optimizer's moments and the trainer's
        `State`; it is written beside, and renamed once whole: a kill leaves only a leftover, which
        is removed. Those beyond the newest `keep` are removed. Waits for the save before this one
        first, and raises its error. stopped: the step is saved because the run stops there, and is
        not one of the newest that `keep` counts.
        """
        self.wait()
        snapshot = take_snapshot(self._trainer, step)
        if self._copy is None:
            self._write(snapshot, stopped)
            return
        snapshot = replace(snapshot, **self._copy.copy(snapshot.parts))
        self._thread = threading.Thread(
            target=self._write_or_keep_error, args=(snapshot, stopped), daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait for the save that is under way, and raise the error that it ended with."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_or_keep_error(self, snapshot: Snapshot, stopped: bool) -> None:
        try:
            self._write(snapshot, stopped)
        except BaseException as error:
            self._error = error

    def _write(self, snapshot: Snapshot, stopped: bool) -> None:
        saved = save_checkpoint(self._directory, snapshot, keep=self._keep, stopped=stopped)
        take_ema(self._directory, saved)


def take_snapshot(trainer: Trainer, step: int) -> Snapshot:
    """Return a trainer's state without copying it: the next step overwrites these tensors."""

    def detach(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in tensors.items()}

    return Snapshot(
        step=step,
        model=detach(trainer.objective.net.state_dict()),
        ema=detach(trainer.ema.state_dict()),
        optimizer=detach(trainer.flatten_optimizer()),
        state=trainer.collect_state().model_dump(mode="json"),
    )


def resume(directory: Path, trainer: Trainer, say: Callable[[str], None]) -> int:
    """Load the newest whole checkpoint into the trainer; return its step, 0 without a checkpoint.

    A damaged checkpoint is reported, and the one before it is tried. Raises BadInputError or
    MissingError where the oldest is damaged too. A resume under other numerics than the
    checkpoint's is reported, and kept in the trainer's `resumed`. The first process then makes
    `ema.safetensors` that of the checkpoint, and removes leftovers and checkpoints beyond `keep`.
    """
    found = list_checkpoints(directory)
    like = Snapshot(
        step=0,
        model=trainer.objective.net.state_dict(),
        ema=trainer.ema.state_dict(),
        optimizer=trainer.flatten_optimizer(),
    )
    for path in reversed(found):
        try:
            loaded = load_checkpoint(path, like)
            state = _read_state(path, loaded)
        except (BadInputError, MissingError) as error:
            if path == found[0]:
                raise
            say(f"{error.what}; continuing from the checkpoint before it")
            continue
        trainer.restore(loaded.model, loaded.ema, loaded.optimizer, state)
        _tell_numerics(loaded.step, trainer, state, say)
        if trainer.world.leads:
            _tidy(directory, loaded, trainer.training.keep)
        return loaded.step
    return 0


def _tell_numerics(step: int, trainer: Trainer, state: State, say: Callable[[str], None]) -> None:
    """Say that a run goes on under other numerics than the checkpoint's; keep it in `resumed`."""
    before = {"processes": state.processes, **state.numerics}
    changed = compare_numerics(step, before, trainer.numerics)
    trainer.resumed = (*state.resumed, *([changed] if changed else []))
    if changed and step < trainer.training.steps:
        say(f"{changed}: from step {step} on the bytes are not those of an undisturbed run")


def _read_state(path: Path, loaded: Snapshot) -> State:
    try:
        return State.model_validate(dict(loaded.state))
    except ValidationError as error:
        fault = find_fault_in(error)
        raise BadInputError(
            f"{path}/state.json: {fault.where}: {fault.sentence}",
            kept="nothing was taken from it",
            next="take an earlier checkpoint",
        ) from None


def _tidy(directory: Path, loaded: Snapshot, keep: int) -> None:
    """Do what the process that saved this checkpoint would have done next."""
    if find_ema_step(directory) != loaded.step:
        take_ema(directory, directory / CHECKPOINTS / name_checkpoint(loaded.step))
    remove_leftovers(directory)
    remove_older(directory, loaded.step, keep)


def fall_back(directory: Path, step: int, *, writes: bool) -> Path | None:
    """Return the newest checkpoint before `step`, None without one; restore its `ema.safetensors`.

    Without a checkpoint `ema.safetensors` is removed. writes: whether this process changes files;
    another one only returns the path.
    """
    good = [path for path in list_checkpoints(directory) if path.name < name_checkpoint(step)]
    last, ema = (good[-1] if good else None), directory / EMA
    if writes and last is None:
        disk.unlink(ema)
    elif writes and last is not None and find_ema_step(directory) != find_ema_step(last):
        take_ema(directory, last)
    return last


def find_ema_step(directory: Path) -> int | None:
    """Return the step of `ema.safetensors` of a stage or checkpoint, None without a whole one."""
    try:
        return int(read_metadata(directory / EMA).get("step", ""))
    except (CdmError, ValueError):
        return None
