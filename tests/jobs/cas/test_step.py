"""Mirrors cdm_cli/jobs/cas/step.py."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cdm_cli.cascade.stage import autocast
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.store import open_store
from cdm_cli.errors import DivergedError, MemoryFloorError, UsageError
from cdm_cli.jobs.cas import step as cas_step
from cdm_cli.jobs.cas.augment import augment, draw_crops
from cdm_cli.jobs.cas.plan import plan_work
from cdm_cli.jobs.cas.recipe import choose_recipe
from cdm_cli.jobs.cas.step import Fit, cut_for_norm
from cdm_cli.jobs.cas.training import measure_accuracy
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.sampling import Compute
from tests.asking import as_typed
from tests.jobs.judging.scoring import options, write_data, write_samples

CPU = torch.device("cpu")


def recipe(net="small", *, batch_size=8, norm_images=4, **changes):
    asked = {"net": net, "batch_size": batch_size, "steps": 10, "lr": 0.1} | changes
    options = as_typed(CasOptions, **asked)
    made = choose_recipe(
        options, resolution=8, channels=3, num_classes=3, num=100, precision="fp32",
        seed=0,
    )  # fmt: skip
    return made.model_copy(update={"norm_images": norm_images})


@pytest.fixture
def normed(monkeypatch):
    """What stands for a ResNet: a convolution, batch norm, and a linear layer."""
    monkeypatch.setattr(
        cas_step,
        "build_cas_network",
        lambda *_, **__: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        ),
    )


def batch_of(num, generator):
    x_0 = torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return TrainBatch(x_0, None, torch.arange(num) % 3)


def part(batch, rows):
    return TrainBatch(batch.x_0[rows], None, batch.y[rows])


def grads(fit):
    return [p.grad.clone() for p in fit.parameters]


@pytest.mark.usefixtures("normed")
def test_a_step_that_does_not_fit_is_told(generator, monkeypatch):
    def lacking(*_):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(Fit, "accumulate", lacking)
    with pytest.raises(MemoryFloorError, match="does not hold 4 images at a time"):
        Fit(recipe(), CPU, World()).step(1, batch_of(8, generator))


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


def accumulate_plainly(fit, step, batch):
    """One piece after another, as if it were the only one; autograd adds up the gradients."""
    draws, total = draw_crops(fit.recipe, step), torch.zeros(())
    for parameter in fit.parameters:
        parameter.grad = None
    for rows in fit.pieces:
        x = augment(batch.x_0[rows], draws.take_rows(rows), fit.recipe)
        with autocast(fit.recipe.precision, CPU):
            logits = fit.net(x).float()
        smoothing = fit.recipe.label_smoothing
        losses = F.cross_entropy(logits, batch.y[rows], reduction="sum", label_smoothing=smoothing)
        loss = losses / fit.recipe.batch_size
        loss.backward()
        total += loss.detach()
    return total


@pytest.mark.usefixtures("normed")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes", [{}, {"label_smoothing": 0.3}, {"batch_size": 7}, {"norm_images": 8}]
)
def test_what_pieces_share_changes_no_bit(generator, precision, changes):
    """Casts of the weights, kernels of the augmentation, the additions, the counts of batches."""
    made = recipe(**changes).model_copy(update={"precision": precision})
    ours, plain = Fit(made, CPU, World()), Fit(made, CPU, World())
    for step in (1, 2, 3):
        batch = batch_of(made.batch_size, generator)
        loss, theirs = ours.accumulate(step, batch), accumulate_plainly(plain, step, batch)
        assert torch.equal(loss, theirs)
        assert all(map(torch.equal, grads(ours), grads(plain)))
        ours._update(step, loss)
        plain._update(step, theirs)
    states = ours.net.state_dict(), plain.net.state_dict()
    assert states[0]["1.num_batches_tracked"] == 3 * len(ours.pieces)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


class Counting(TorchDispatchMode):
    """Counts what is started: on a GPU each of these is a kernel or several."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        cast = name == "_to_copy" and isinstance(args[0], nn.Parameter)
        self.counts["cast of a weight" if cast else name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("normed")
def test_pieces_cast_weights_once_and_are_added_up_all_at_once(generator):
    """The processor that starts the kernels is what a step waits for, where images are small."""
    made = recipe(batch_size=16).model_copy(update={"precision": "bf16"})
    fit, batch = Fit(made, CPU, World()), batch_of(16, generator)
    with Counting() as counting:
        fit.accumulate(1, batch)
    counts = counting.counts
    assert len(fit.pieces) == 4
    assert counts["convolution"] == 4
    assert counts["gather"] == 2, "crops of all images are cut out at once"
    assert counts["cast of a weight"] == 4, "weights and biases of two layers"
    assert counts["_foreach_add_"] == 3 + 1, "gradients of each other piece, and counts of batches"
    assert counts["add_"] == 0


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
    momentum = [fit._find_momentum(p).clone() for p in fit.parameters]
    fit.step(2, batch)
    rate = fit._optimizer.param_groups[0]["lr"]
    for p, w, m, g in zip(fit.parameters, middle, momentum, grads(fit), strict=True):
        decay = 1e-4 if p.ndim > 1 else 0
        torch.testing.assert_close(p.detach(), w - rate * (0.9 * m + g + decay * w))


def test_the_loss_is_cross_entropy_with_smoothed_labels(generator):
    fit, batch = Fit(recipe(label_smoothing=0.3), CPU, World()), batch_of(8, generator)
    head, bias = fit.net.classifier.head, torch.tensor([0.5, -1.0, 2.0])
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(bias)
    surprise = -bias.log_softmax(0)
    expected = 0.7 * surprise[batch.y].mean() + 0.3 * surprise.mean()
    torch.testing.assert_close(fit.accumulate(1, batch), expected.detach())


def test_a_step_that_is_not_finite_touches_nothing(generator):
    fit, batch = Fit(recipe(), CPU, World()), batch_of(8, generator)
    head = fit.net.classifier.head
    with torch.no_grad():
        head.bias[0] = torch.nan
    weights = head.weight.detach().clone()
    fit.step(1, batch)
    assert torch.equal(head.weight, weights)
    assert all(fit._find_momentum(p).abs().max() == 0 for p in fit.parameters)
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
    second.restore(first.take_snapshot(2))
    for step in (3, 4):
        second.step(step, batches[step - 1])
    whole.read()
    second.read()
    assert second.loss == whole.loss
    for mine, theirs in zip(second.net.state_dict().values(), whole.net.state_dict().values(),
                            strict=True):  # fmt: skip
        assert torch.equal(mine, theirs)


class Second(World):
    """The second of two processes; a sum over both adds what the first has."""

    def sum_(self, tensors, scalar):
        for mine, theirs in zip(tensors, self.control, strict=True):
            mine.add_(theirs)


@pytest.mark.usefixtures("normed")
def test_every_process_tests_with_the_statistics_of_the_first(generator):
    first = Fit(recipe(), CPU, World(0, 2))
    first.net.train()(torch.randn(4, 3, 8, 8, generator=generator))
    theirs = [buffer for buffer in first.net.buffers() if buffer.is_floating_point()]
    second = Fit(recipe(), CPU, Second(1, 2, control=theirs))
    second.net.train()(torch.randn(4, 3, 8, 8, generator=generator))
    second.share_statistics()
    mine = [buffer for buffer in second.net.buffers() if buffer.is_floating_point()]
    assert len(mine) == 2
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.usefixtures("normed")
def test_the_test_takes_running_statistics_whatever_its_batch(tmp_path):
    fit = Fit(recipe(), CPU, World())
    data, samples = write_data(tmp_path / "data.h5"), write_samples(tmp_path / "samples.h5")
    counts = []
    with open_store(data) as ref, open_store(samples) as store:
        work = plan_work(options(tmp_path), store, ref, CPU)
        batches = work.samples.take_batches(fit.recipe, World())
        for step in range(1, 9):
            fit.step(step, batches.read_batch(step))
        for batch_size in (1, 60):
            session = Session(CPU, Compute(batch_size=batch_size))
            accuracy = measure_accuracy(fit, work, session, "samples")
            counts.append(accuracy.tensor())
    assert torch.equal(*counts)
    assert counts[0][1].sum() > 30


def test_logits_that_are_not_finite_are_no_answer(tmp_path):
    """The largest of NaN is the first: every image would be called by one class."""
    fit = Fit(recipe(), CPU, World())
    for parameter in fit.net.parameters():
        parameter.data.fill_(1e38)
    data, samples = write_data(tmp_path / "data.h5"), write_samples(tmp_path / "samples.h5")
    with open_store(data) as ref, open_store(samples) as store:
        work = plan_work(options(tmp_path), store, ref, CPU)
        with pytest.raises(DivergedError, match="samples gives logits that are not finite"):
            measure_accuracy(fit, work, Session(CPU, Compute(batch_size=8)), "samples")


@pytest.mark.parametrize(("batch_size", "processes"), [(7, 2), (2, 2), (6, 2)])
def test_a_batch_that_cannot_be_shared(batch_size, processes):
    with pytest.raises(UsageError, match="--batch-size") as caught:
        Fit(recipe(batch_size=batch_size), CPU, World(0, processes))
    good = int(caught.value.next.split()[-1])
    Fit(recipe(batch_size=good), CPU, World(0, processes))


def test_pieces_are_equal_and_cover_all():
    assert cut_for_norm(64, 32) == [slice(0, 32), slice(32, 64)]
    assert cut_for_norm(33, 32) == [slice(0, 16), slice(16, 33)]
    assert cut_for_norm(5, 32) == [slice(0, 5)]
