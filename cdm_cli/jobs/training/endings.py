"""How a training run ends before its last step: by what, what is said, and what is kept."""

from collections.abc import Callable
from pathlib import Path

from cdm_cli.cascade.saved import CHECKPOINTS, find_latest_checkpoint, name_checkpoint
from cdm_cli.data.reading import read_stamp
from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError, DivergedError, StoppedError
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.files import fall_back
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.report import Report


def describe_last_good(checkpoint: Path | None) -> str:
    """Return words that name the last good checkpoint, or say that there is none."""
    return (
        f"the last good checkpoint is {checkpoint}" if checkpoint else "no good checkpoint was made"
    )


class DataCheck:
    """Tells, whenever it is called, whether the data of a running training were changed in place.

    Where the file was touched, blocks that were read are read again and compared with before.
    """

    def __init__(self, store: Store, report: Report) -> None:
        self._store, self._report = store, report
        self._there = self._is_in_place()

    def __call__(self) -> None:
        """Raise BadInputError where the data are cut short, or are no longer what was read.

        Where another file has taken the path, this is only said: the run keeps reading the one that
        it opened.
        """
        for part in self._store.parts.values():
            part.recheck()
        was, self._there = self._there, self._is_in_place()
        if was and not self._there:
            self._report.say(
                f"{self._store.path} is another file now: this run goes on with the one that it "
                "opened, and to continue it after a stop takes the same data"
            )

    def _is_in_place(self) -> bool:
        """Whether the path leads to the file that was opened."""
        try:
            return read_stamp(self._store.path)[:2] == self._store.stamp[:2]
        except OSError:
            return False


def require_same_data(check_data: Callable[[], object], directory: Path, world: World) -> None:
    """Ask in every process whether its data changed; raise in all of them if they did in one.

    Raises what `check_data` raises here, and StoppedError where it raised in another process.
    """
    error: CdmError | None = None
    try:
        check_data()
    except CdmError as found:
        error = found
    good = world.agree(error is None)
    if error is not None:
        raise error
    if not good:
        raise StoppedError(
            "the data of another process have changed",
            kept=describe_last_good(find_latest_checkpoint(directory)),
            next="see its message",
        )


def explain_stop(
    stop: Stop, directory: Path, trainer: Trainer, step: int, *, saved: bool
) -> StoppedError:
    """Return the StoppedError of a run that stops after `step`.

    saved: whether there is a checkpoint of that step; there is none where the last steps were not
    finite.
    """
    streak = trainer.count_streak()
    steps = f"{streak} steps were" if streak > 1 else "step was"
    lost = f"the last {steps} not finite, so this one is not saved; "
    last = find_latest_checkpoint(directory)
    there = f"{directory}/checkpoints holds that step" if step else "nothing was learned yet"
    return stop.error(
        there if saved else lost + describe_last_good(last),
        where=f" after step {step} of {trainer.training.steps}",
        next="run the same command again, it "
        + ("continues there" if saved or last else "begins anew"),
    )


def recover_from_divergence(
    directory: Path, trainer: Trainer, step: int, in_a_row: int, *, may_pass: bool
) -> DivergedError:
    """Put the last good weights back into `ema.safetensors`; return the DivergedError of the run.

    Good is a checkpoint before the one that the streak of steps that were not finite began with.
    in_a_row: the length of that streak. may_pass: it is short, and ends with the last step, so
    that more steps may get past it.
    """
    begun = step - trainer.count_streak()
    good = fall_back(directory, begun, writes=trainer.world.leads)
    trainer.world.barrier()
    ruined = directory / CHECKPOINTS / name_checkpoint(begun)
    told = f"; {ruined.name} holds the weights that gave them" if ruined.is_dir() else ""
    lower = f"a lower --set training.lr (now {trainer.training.lr:g}) under another NAME"
    steps = f"{in_a_row} steps in a row, up to" if in_a_row > 1 else "the last step,"
    return DivergedError(
        f"{steps} step {step}, had a loss or gradient that is not "
        "finite; none of them touched the weights",
        kept=describe_last_good(good) + told,
        next=f"more --steps, which may pass them, or {lower}" if may_pass else lower,
    )
