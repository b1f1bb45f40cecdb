"""The data of a training run: its batches, and whether they stay what they were.

Which images a step takes depends on the step alone.
"""

from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatches
from cdm_cli.data.reading import stamp
from cdm_cli.data.store import Store
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.plan import resolution_of, training_part
from cdm_cli.plans import Plan
from cdm_cli.report import Report


def batches_of(plan: Plan, store: Store, world: World) -> TrainBatches:
    """Return this process's share of every batch."""
    stage = plan.stage
    conditioning = stage.conditioning if isinstance(stage, StageConfig) else None
    return TrainBatches(
        training_part(store),
        resolution_of(stage),
        conditioning.resolution if conditioning else None,
        plan.training.batch_size,
        plan.training.seed,
        world.rank,
        world.size,
    )


class Unchanged:
    """Notices, whenever it is called, that the data of a running training were changed in place."""

    def __init__(self, store: Store, report: Report) -> None:
        self._store, self._report = store, report
        self._there = self._in_place()

    def __call__(self) -> None:
        """Read again what was read before, if the file was touched since.

        Where another file has taken the path, this is only said: the run keeps reading the one that
        it opened. Raises BadInputError where that one has become shorter, or holds something else.
        """
        for part in self._store.parts.values():
            part.recheck()
        was, self._there = self._there, self._in_place()
        if was and not self._there:
            self._report.say(
                f"{self._store.path} is another file now: this run goes on with the one that it "
                "opened, and to continue it after a stop takes the same data"
            )

    def _in_place(self) -> bool:
        """Whether the path leads to the file that was opened."""
        try:
            return stamp(self._store.path)[:2] == self._store.stamp[:2]
        except OSError:
            return False
