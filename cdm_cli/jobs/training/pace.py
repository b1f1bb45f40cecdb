"""How fast this device trains, timed by a few steps on noise that are then forgotten."""

from collections.abc import Iterator
from itertools import count

import torch

from cdm_cli.config import ClassifierConfig, StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.device import keep_seeds, wait
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.pace import measure_pace
from cdm_cli.jobs.training.objective import build_objective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.names import Precision
from cdm_cli.plans import Plan

WARM = 2


def time_steps(plan: Plan, device: torch.device, precision: Precision) -> float | None:
    """Time training on noise; return the steps a second of one process that takes whole batches."""
    config, training = plan.stage, plan.training
    classifies = isinstance(config, ClassifierConfig)
    num = config.num_classes if classifies else config.model.num_classes
    classes = [str(k) for k in range(num)]

    def steps() -> Iterator[None]:
        objective = build_objective(config, classes, training, device, precision)
        trainer = Trainer(objective, training, Session(device), cosine=classifies)
        batch = _draw_noise(config, training.batch_size, device)
        for step in count(1):
            yield trainer.step(step, batch)

    with keep_seeds(device):
        return measure_pace(steps(), WARM, lambda: wait(device))


def _draw_noise(
    config: StageConfig | ClassifierConfig, num: int, device: torch.device
) -> TrainBatch:
    model = config if isinstance(config, ClassifierConfig) else config.model
    conditioning = config.conditioning if isinstance(config, StageConfig) else None

    def images(side: int) -> torch.Tensor:
        shape = (num, model.channels, side, side)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    y = torch.arange(num, device=device) % max(model.num_classes, 1)
    return TrainBatch(
        images(model.resolution), images(conditioning.resolution) if conditioning else None, y
    )
