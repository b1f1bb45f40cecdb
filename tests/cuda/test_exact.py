"""Training on CUDA has the noise and dropout of places, and with --exact the bits of one GPU."""

from pathlib import Path

import pytest

from cdm_cli.jobs.training import train
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.cuda.rig import needs, together
from tests.jobs.training.processes import bits
from tests.tiny import Told
from tests.trained import rows

STEPS = 12
SET = (
    "model.dropout=0.3", "training.save_every=4", "training.log_every=1", "training.grid_every=0",
    "training.keep=9",
)  # fmt: skip


def trained(preset, name, gpus, *more, steps=STEPS, exact=None):
    asked = as_typed(
        TrainOptions, name=name, preset=preset, overrides=(*SET, *more), steps=steps,
        batch_size=64, exact=exact,
    )  # fmt: skip
    train.run(asked, Told()) if gpus == 1 else together(train.run_in, asked, gpus, Told())
    return Path("runs") / name


@needs(2)
@pytest.mark.parametrize("preset", ["tiny-base16", "tiny-sr8-16"])
def test_exact_training_has_the_bits_of_one_gpu_on_two_and_on_the_way_between(preset):
    one = bits(trained(preset, f"{preset}-1", 1, exact=True))
    two = bits(trained(preset, f"{preset}-2", 2, exact=True))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    for gpus, steps in ((2, 4), (1, 8), (2, STEPS)):
        moved = trained(preset, f"{preset}-moved", gpus, steps=steps, exact=True)
    assert bits(moved) == one


@needs(1)
@pytest.mark.parametrize("preset", ["tiny-base16", "tiny-sr8-16"])
def test_parts_of_a_batch_have_the_dropout_of_the_whole(preset):
    """Masks of the kernels that divide a batch otherwise; without them losses are far apart."""
    whole, parts = (
        [row["loss"] for row in rows(trained(preset, f"{preset}-{tag}", 1, *more))][:4]
        for tag, more in (("whole", ()), ("parts", ("training.micro_batch=16",)))
    )
    for mine, others in zip(whole, parts, strict=True):
        assert mine == pytest.approx(others, rel=2e-3)
