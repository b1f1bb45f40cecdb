"""What is replayed as one CUDA graph has the bits of kernels that are launched one by one."""

from itertools import product
from pathlib import Path

import pytest

from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.training import train
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
