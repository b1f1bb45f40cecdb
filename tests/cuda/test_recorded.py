"""What is replayed as one CUDA graph has the bits of kernels that are launched one by one."""

from pathlib import Path

import pytest

from cdm_cli.jobs import sample, train, upsample
from cdm_cli.options import TrainOptions
from tests.cuda.rig import needs
from tests.cuda.steps import drawing, enlarging
from tests.tiny import Told, contents
from tests.trained import left

SET = ("training.save_every=6", "training.log_every=3", "training.grid_every=4")


@pytest.fixture
def launched(monkeypatch):
    """Return what launches kernels one by one from then on."""

    def launch():
        monkeypatch.setattr(
            "cdm_cli.nets.recorded.recorded_if_it_fits", lambda function, inputs: function
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
@pytest.mark.parametrize("more", [(), ("training.micro_batch=16",)])
@pytest.mark.parametrize("preset", ["tiny-base8", "tiny-sr8-16", "tiny-classifier"])
def test_training(preset, more, launched):
    names = f"replayed-{preset}-{len(more)}", f"launched-{preset}-{len(more)}"
    for name in names:
        asked = {"preset": preset, "overrides": (*SET, *more), "steps": 14, "batch_size": 64}
        train.run(TrainOptions(name=name, **asked), Told())
        launched()
    one, other = (left(Path("runs") / name) for name in names)
    assert one == other
