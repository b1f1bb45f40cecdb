"""What is replayed as one CUDA graph has the bits of kernels that are launched one by one."""

from itertools import product
from pathlib import Path

import pytest
import torch

from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.cas.recipe import choose_recipe
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.training import train
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.cuda.rig import needs
from tests.cuda.steps import drawing, enlarging
from tests.tiny import Told, contents
from tests.trained import left

SET = ("training.save_every=6", "training.log_every=3", "training.grid_every=4")

PARTS, DROPOUT = ("training.micro_batch=16",), ("model.dropout=0.2",)


@pytest.fixture
def launched(monkeypatch):
    """Return what launches kernels one by one from then on."""

    def launch():
        monkeypatch.setattr(
            "cdm_cli.nets.kernels.recorded.record_if_it_fits", lambda function, inputs: function
        )

    return launch


@needs(1)
def test_sampling(one, launched):
    launched()
    sample.run(drawing("launched-lowres.h5"), Told())
    upsample.run(enlarging("launched"), Told())
    for store in ("lowres.h5", "samples.h5"):
        assert contents(f"launched-{store}") == contents(f"one-{store}")


@needs(1)
@pytest.mark.parametrize(
    ("preset", "more"),
    [
        *product(("tiny-base8", "tiny-sr8-16", "tiny-classifier"), [(), PARTS]),
        ("tiny-base8", DROPOUT),
        ("tiny-base8", (*PARTS, *DROPOUT)),
        ("tiny-base8", (*DROPOUT, "training.gradient_checkpointing=true")),
    ],
)
def test_training(preset, more, launched):
    tag = f"{preset}-{'-'.join(word.partition('.')[2] for word in more)}".replace("=", "-")
    names = f"replayed-{tag}", f"launched-{tag}"
    for name in names:
        asked = {"preset": preset, "overrides": (*SET, *more), "steps": 14, "batch_size": 64}
        train.run(as_typed(TrainOptions, name=name, **asked), Told())
        launched()
    one, other = (left(Path("runs") / name) for name in names)
    assert one == other


def cas_states(net, side, precision, batch_size):
    """Return all that a fit holds after some steps, and its loss."""
    device = torch.device("cuda")
    recipe = choose_recipe(
        as_typed(CasOptions, net=net, batch_size=batch_size, steps=10), resolution=side, channels=3,
        num_classes=10, num=1000, precision=precision, seed=0,
    )  # fmt: skip
    fit, drawn = Fit(recipe, device, World()), torch.Generator(device).manual_seed(0)
    for step in range(1, 8):
        size = (batch_size, 3, side, side)
        x_0 = torch.randint(0, 256, size, dtype=torch.uint8, device=device, generator=drawn)
        y = torch.randint(0, 10, (batch_size,), device=device, generator=drawn)
        fit.step(step, TrainBatch(x_0, None, y))
    fit.read()
    assert fit.skipped == 0
    snapshot = fit.take_snapshot(7)
    return {**snapshot.model, **snapshot.optimizer}, fit.loss


@needs(1)
@pytest.mark.parametrize(
    ("net", "side", "batch_size"),
    [("resnet18", 32, 256), ("resnet18", 64, 128), ("resnet50", 32, 100), ("small", 16, 128)],
)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_cas(net, side, batch_size, precision, launched):
    """Running statistics and counts of batch norm, too: a recording adds nothing to them."""
    make_deterministic(torch.device("cuda"))
    (one, loss), _ = cas_states(net, side, precision, batch_size), launched()
    other, again = cas_states(net, side, precision, batch_size)
    assert loss == again
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
