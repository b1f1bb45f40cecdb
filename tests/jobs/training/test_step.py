"""Mirrors cdm_cli/jobs/training/step.py, on a linear model whose gradients are known."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cdm_cli.config import TrainingConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.step import Trainer, learning_rate, seed_of

CPU = torch.device("cpu")
VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0])


class Line:
    """The loss of example i is weight · x_i + bias; dropout shows what is random in a step."""

    def __init__(self, dropout=0.0):
        self.net = nn.Linear(1, 1)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)
        self.dropout, self.drawn, self.masks = dropout, [], []

    def draw(self, batch, generator):
        self.drawn.append(torch.rand(1, generator=generator).item())
        return ()

    def losses(self, batch, draws):
        x = batch.x_0.flatten(1)
        self.masks.append(torch.rand(1).item())
        return nn.functional.dropout(self.net(x), self.dropout).squeeze(1)


def batch(values=VALUES):
    return TrainBatch(values.view(-1, 1, 1, 1), None, torch.zeros(len(values), dtype=torch.int64))


def trainer(objective=None, *, world=None, cosine=False, **changes):
    values = {"steps": 10, "batch_size": 4, "lr": 0.1, "ema_decay": 0.5}
    training = TrainingConfig(**(values | changes))
    session = Session(CPU, world=world or World())
    return Trainer(objective or Line(), training, session, cosine=cosine)


def state(one):
    tensors = {**one.objective.net.state_dict(), **one.optimizer_tensors()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_seeds_depend_on_every_part():
    seeds = {seed_of(*parts) for parts in [(0, 1, 2), (0, 2, 1), (0, 12), (0, 1, 2, "dropout", 0)]}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)


def test_learning_rate_warms_up_then_stays_or_falls_to_nothing():
    training = TrainingConfig(steps=100, lr=2.0, warmup=4)
    rates = [learning_rate(training, step, cosine=False) for step in (1, 2, 4, 5, 100)]
    assert rates == [0.5, 1.0, 2.0, 2.0, 2.0]
    falling = [learning_rate(training, step, cosine=True) for step in (51, 100)]
    assert falling == pytest.approx([1.0, 2 * 0.5 * (1 + math.cos(0.99 * math.pi))])
    assert learning_rate(TrainingConfig(lr=2.0), 1, cosine=False) == 2.0


class OneDevice(TorchDispatchMode):
    """Refuse what takes tensors of two devices: a copy from the CPU waits for the other one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor)]
        assert len({x.device.type for x in tensors}) <= 1, func
        return made


def test_counting_waits_for_no_device():
    one = trainer()
    with FakeTensorMode(allow_non_fake_inputs=True), OneDevice():  # of CUDA, without one
        one._sums = torch.zeros(4, device="cuda", dtype=torch.float64)
        one._row, loss = torch.zeros(2, device="cuda"), torch.zeros((), device="cuda")
        one._note(loss, loss, loss > 0)
        assert one._sums.device.type == "cuda"
        with pytest.raises(AssertionError, match="copy_"):
            one._row[0] = 1


def test_the_gradient_is_that_of_the_mean_over_the_batch():
    one = trainer(weight_decay=0.0)
    one.step(1, batch())
    assert one.objective.net.weight.grad.item() == pytest.approx(VALUES.mean().item())
    # Adam's first step is lr in the direction of the gradient.
    assert one.objective.net.weight.item() == pytest.approx(-0.1, rel=1e-5)
    progress = one.read()
    assert progress.loss == 0.0
    assert progress.grad_norm == pytest.approx(math.hypot(3.0, 1.0))


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_parts_of_a_batch_add_up_to_it(micro_batch):
    whole, parts = trainer(), trainer(micro_batch=micro_batch)
    for step in (1, 2, 3):
        whole.step(step, batch())
        parts.step(step, batch())
    for name, tensor in state(whole).items():
        torch.testing.assert_close(tensor, state(parts)[name], rtol=1e-5, atol=1e-7)


def test_released_memory_changes_no_step():
    one, other = trainer(), trainer()
    for step in (1, 2, 3):
        one.step(step, batch())
        other.step(step, batch())
        other.release()
        assert other.objective.net.weight.grad is None
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())


def test_weight_decay_pulls_matrices_only():
    one = trainer(weight_decay=0.5)
    nn.init.ones_(one.objective.net.weight)
    nn.init.ones_(one.objective.net.bias)
    one.step(1, batch(torch.zeros(4)))  # no gradient for the weight
    assert one.objective.net.weight.item() == pytest.approx(1 - 0.1 * 0.5)
    assert one.objective.net.bias.item() == pytest.approx(1 - 0.1)


def stepped(step, world=None, **changes):
    """Take one step, whatever else was drawn before; return what it drew and dropout's numbers."""
    objective = Line()
    torch.rand(3)
    size = world.size if world else 1
    one = trainer(objective, world=world, **changes)
    one._generator.manual_seed(step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "agree", lambda self, flag: flag)
        patch.setattr(World, "sum_", lambda self, tensors, scalar: None)
        one.step(step, batch(VALUES[: 4 // size]))
    return objective


@pytest.mark.parametrize("what", ["drawn", "masks"])
def test_what_is_drawn_depends_on_seed_step_and_rank_alone(what):
    def drawn(*args, **changes):
        return getattr(stepped(*args, **changes), what)[0]

    assert drawn(3) == drawn(3)
    others = [drawn(4), drawn(3, seed=1), drawn(3, World(rank=1, size=2))]
    assert len({drawn(3), *others}) == 4
    assert drawn(3, World(rank=0, size=2)) == drawn(3)


def test_dropout_of_each_part_of_a_batch_is_its_own_and_none_of_what_is_drawn():
    parts = stepped(3, micro_batch=2)
    assert len(parts.masks) == 2
    assert parts.masks[0] == stepped(3).masks[0]
    assert len({*parts.masks, *parts.drawn}) == 3


def test_dropout_is_the_same_however_the_step_was_reached():
    through, alone = trainer(Line(dropout=0.5)), trainer(Line(dropout=0.5))
    through.step(1, batch())
    alone.objective.net.load_state_dict(through.objective.net.state_dict())
    through.step(2, batch())
    torch.rand(5)
    alone.step(2, batch())
    assert torch.equal(through.objective.net.weight.grad, alone.objective.net.weight.grad)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_step_changes_neither_weights_nor_moments(value):
    one = trainer()
    one.step(1, batch())
    before = state(one)
    one.step(2, batch(torch.tensor([1.0, value, 1.0, 1.0])))
    for name, tensor in state(one).items():
        assert torch.equal(tensor, before[name]), name
    assert one.read() == (0.0, pytest.approx(math.hypot(3.0, 1.0)), 1, 1)


def test_read_counts_bad_steps_in_a_row_across_reads():
    one, bad = trainer(), batch(torch.full((4,), math.nan))
    for step in (1, 2):
        one.step(step, bad)
    assert one.read()[2:] == (2, 2)
    one.step(3, bad)
    assert one.read()[2:] == (1, 3)  # the row goes on
    one.step(4, batch())
    one.step(5, bad)
    found = one.read()
    assert found[2:] == (1, 3)  # the longest since the last call began with three
    assert one.read()[3] == 1
    assert math.isnan(one.read().loss)


def test_a_restored_trainer_continues_bit_for_bit():
    one, other = trainer(), trainer()
    for step in (1, 2):
        one.step(step, batch())
    ema = {name: tensor.clone() for name, tensor in one.ema.state_dict().items()}
    tensors = {name: tensor.clone() for name, tensor in one.optimizer_tensors().items()}
    model = {name: tensor.clone() for name, tensor in one.objective.net.state_dict().items()}
    other.restore(model, ema, tensors, one.state())
    for step in (3, 4):
        one.step(step, batch())
        other.step(step, batch())
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())
    for name, tensor in one.ema.state_dict().items():
        assert torch.equal(tensor, other.ema.state_dict()[name])
    assert one.read() == other.read()


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UsageError, match="cannot be shared by 3 processes") as refused:
        trainer(world=World(rank=0, size=3))
    assert refused.value.next == "--batch-size 6"
