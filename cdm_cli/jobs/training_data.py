"""The batches of a training run: which images a step takes depends on the step alone."""

from cdm_cli.config import Plan, StageConfig
from cdm_cli.data.batches import TrainBatches
from cdm_cli.data.store import Store
from cdm_cli.jobs.distributed import World
from cdm_cli.jobs.training_plan import resolution_of, training_part


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
