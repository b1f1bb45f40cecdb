"""Mirrors cdm_cli/jobs/cas_step.py."""

import pytest
import torch
from torch import nn

from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import UsageError
from cdm_cli.jobs import cas_step
from cdm_cli.jobs.cas_recipe import recipe_of
from cdm_cli.jobs.cas_step import Fit, pieces
from cdm_cli.jobs.distributed import World
from cdm_cli.options import CasOptions

CPU = torch.device("cpu")


def recipe(net="small", *, batch_size=8, norm_images=4, **changes):
    asked = {"net": net, "batch_size": batch_size, "steps": 10, "lr": 0.1} | changes
    made = recipe_of(
        CasOptions(**asked), resolution=8, channels=3, num_classes=3, num=100, precision="fp32",
        seed=0,
    )  # fmt: skip
    return made.model_copy(update={"norm_images": norm_images})


@pytest.fixture
def normed(monkeypatch):
    """What stands for a ResNet: a convolution, batch norm, and a linear layer."""
    monkeypatch.setattr(
        cas_step,
        "cas_network",
        lambda *_, **__: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        ),
    )


def batch_of(num, generator):
    x_0 = torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return TrainBatch(x_0, None, torch.arange(num) % 3, torch.arange(num))


def part(batch, rows):
    return TrainBatch(batch.x_0[rows], None, batch.y[rows], batch.ids[rows])


def grads(fit):
    return [p.grad.clone() for p in fit.parameters]


@pytest.mark.usefixtures("normed")
def test_shares_of_two_processes_add_up_to_the_whole(generator):
    """With batch norm, too: its pieces are the same on one process and on two."""
    batch = batch_of(8, generator)
    one = Fit(recipe(), CPU, World())
    loss = one.accumulate(1, batch)
    losses, sums = [], [torch.zeros_like(p) for p in one.parameters]
    for rank in range(2):
        fit = Fit(recipe(), CPU, World(rank, 2))
        losses.append(fit.accumulate(1, part(batch, slice(4 * rank, 4 * rank + 4))))
        sums = [total + grad for total, grad in zip(sums, grads(fit), strict=True)]
    torch.testing.assert_close(sum(losses), loss)
    torch.testing.assert_close(sums, grads(one), atol=1e-6, rtol=1e-4)


def test_a_step_is_sgd_with_momentum_and_decays_matrices_alone(generator):
    fit, batch = Fit(recipe(), CPU, World()), batch_of(8, generator)
    fit.accumulate(1, batch)
    before, first = [p.detach().clone() for p in fit.parameters], grads(fit)
    fit.step(1, batch)
    rate = fit._optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(fit.recipe.lr / max(fit.recipe.warmup, 1))
    for p, w, g in zip(fit.parameters, before, first, strict=True):
        decay = 1e-4 if p.ndim > 1 else 0
        torch.testing.assert_close(p.detach(), w - rate * (g + decay * w))
    middle = [p.detach().clone() for p in fit.parameters]
    momentum = [fit._momentum(p).clone() for p in fit.parameters]
    fit.step(2, batch)
    rate = fit._optimizer.param_groups[0]["lr"]
    for p, w, m, g in zip(fit.parameters, middle, momentum, grads(fit), strict=True):
        decay = 1e-4 if p.ndim > 1 else 0
        torch.testing.assert_close(p.detach(), w - rate * (0.9 * m + g + decay * w))


def test_a_step_that_is_not_finite_touches_nothing(generator):
    fit, batch = Fit(recipe(), CPU, World()), batch_of(8, generator)
    head = fit.net.classifier.head
    with torch.no_grad():
        head.bias[0] = torch.nan
    weights = head.weight.detach().clone()
    fit.step(1, batch)
    assert torch.equal(head.weight, weights)
    assert all(fit._momentum(p).abs().max() == 0 for p in fit.parameters)
    fit.read()
    assert fit.loss is None
    assert fit.skipped == 1


@pytest.mark.usefixtures("normed")
def test_a_restored_fit_goes_on_to_the_same_bits(generator):
    batches = [batch_of(8, generator) for _ in range(4)]
    whole, first = Fit(recipe(), CPU, World()), Fit(recipe(), CPU, World())
    for step, batch in enumerate(batches, 1):
        whole.step(step, batch)
    for step in (1, 2):
        first.step(step, batches[step - 1])
    second = Fit(recipe(seed=5), CPU, World())
    second.restore(first.snapshot(2))
    for step in (3, 4):
        second.step(step, batches[step - 1])
    whole.read()
    second.read()
    assert second.loss == whole.loss
    for mine, theirs in zip(second.net.state_dict().values(), whole.net.state_dict().values(),
                            strict=True):  # fmt: skip
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("batch_size", "processes"), [(7, 2), (2, 2), (6, 2)])
def test_a_batch_that_cannot_be_shared(batch_size, processes):
    with pytest.raises(UsageError, match="--batch-size") as caught:
        Fit(recipe(batch_size=batch_size), CPU, World(0, processes))
    good = int(caught.value.next.split()[-1])
    Fit(recipe(batch_size=good), CPU, World(0, processes))


def test_pieces_are_equal_and_cover_all():
    assert pieces(64, 32) == [slice(0, 32), slice(32, 64)]
    assert pieces(33, 32) == [slice(0, 16), slice(16, 33)]
    assert pieces(5, 32) == [slice(0, 5)]
