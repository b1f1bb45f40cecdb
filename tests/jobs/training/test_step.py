"""Mirrors cdm_cli/jobs/training/step.py, on a linear model whose gradients are known."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cdm_cli.jobs.training.step import compute_learning_rate
from cdm_cli.plans import TrainingConfig
from tests.jobs.training.line import VALUES, batch, trainer


def state(one):
    tensors = {**one.objective.net.state_dict(), **one.flatten_optimizer()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_learning_rate_warms_up_then_stays_or_falls_to_nothing():
    training = TrainingConfig(steps=100, lr=2.0, warmup=4)
    rates = [compute_learning_rate(training, step, cosine=False) for step in (1, 2, 4, 5, 100)]
    assert rates == [0.5, 1.0, 2.0, 2.0, 2.0]
    falling = [compute_learning_rate(training, step, cosine=True) for step in (51, 100)]
    assert falling == pytest.approx([1.0, 2 * 0.5 * (1 + math.cos(0.99 * math.pi))])
    assert compute_learning_rate(TrainingConfig(lr=2.0), 1, cosine=False) == 2.0


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
        one._streaks, loss = torch.zeros(2, device="cuda"), torch.zeros((), device="cuda")
        one._note(loss, loss, loss > 0)
        assert one._sums.device.type == "cuda"
        with pytest.raises(AssertionError, match="copy_"):
            one._streaks[0] = 1


def test_the_gradient_is_that_of_the_mean_over_the_batch():
    one = trainer(weight_decay=0.0)
    one.step(1, batch())
    assert one.objective.net.weight.grad.item() == pytest.approx(VALUES.mean().item())
    # Adam's first step is lr in the direction of the gradient.
    assert one.objective.net.weight.item() == pytest.approx(-0.1, rel=1e-5)
    progress = one.read()
    assert progress.loss == 0.0
    assert progress.grad_norm == pytest.approx(math.hypot(3.0, 1.0))


def test_released_memory_changes_no_step():
    one, other = trainer(), trainer()
    for step in (1, 2, 3):
        one.step(step, batch())
        other.step(step, batch())
        other.gradients.release()
        assert other.objective.net.weight.grad is None
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())


def test_weight_decay_pulls_matrices_only():
    one = trainer(weight_decay=0.5)
    nn.init.ones_(one.objective.net.weight)
    nn.init.ones_(one.objective.net.bias)
    one.step(1, batch(torch.zeros(4)))  # no gradient for the weight
    assert one.objective.net.weight.item() == pytest.approx(1 - 0.1 * 0.5)
    assert one.objective.net.bias.item() == pytest.approx(1 - 0.1)


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
    tensors = {name: tensor.clone() for name, tensor in one.flatten_optimizer().items()}
    model = {name: tensor.clone() for name, tensor in one.objective.net.state_dict().items()}
    other.restore(model, ema, tensors, one.collect_state())
    for step in (3, 4):
        one.step(step, batch())
        other.step(step, batch())
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())
    for name, tensor in one.ema.state_dict().items():
        assert torch.equal(tensor, other.ema.state_dict()[name])
    assert one.read() == other.read()
