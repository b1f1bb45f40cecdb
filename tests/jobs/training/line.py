"""A linear model whose gradients are known, and a trainer of it."""

import torch
from torch import nn

from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.plans import TrainingConfig

CPU = torch.device("cpu")
VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0])


class Line:
    """The loss of example i is weight · x_i + bias, and what was drawn for it: its noise.

    seen: the noise of each part of a batch. masks: a number of torch's default generator for each.
    """

    def __init__(self):
        self.net = nn.Linear(1, 1)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)
        self.seen, self.masks = [], []

    def draw(self, batch, generator, num):
        return (torch.rand(num, generator=generator),)

    def compute_losses(self, batch, draws):
        self.seen.append(draws[0])
        self.masks.append(torch.rand(1).item())
        return self.net(batch.x_0.flatten(1)).squeeze(1) + 0 * draws[0]


def batch(values=VALUES):
    return TrainBatch(values.view(-1, 1, 1, 1), None, torch.zeros(len(values), dtype=torch.int64))


def settings(**changes):
    values = {"steps": 10, "batch_size": 4, "lr": 0.1, "ema_decay": 0.5, "keyed_by": "place"}
    return TrainingConfig(**(values | changes))


def trainer(objective=None, *, world=None, cosine=False, **changes):
    session = Session(CPU, world=world or World())
    return Trainer(objective or Line(), settings(**changes), session, cosine=cosine)
