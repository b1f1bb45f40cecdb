"""Compiled networks on CUDA keep the promises: the same bytes on two GPUs, and after a stop.

No process finds what another one compiled, where that could hide that it would choose otherwise.
The compiler takes most of the time.
"""

import os
import signal
from pathlib import Path

import pytest

from cdm_cli.errors import StoppedError
from cdm_cli.jobs.sampling import sample
from cdm_cli.jobs.training import train
from cdm_cli.options.sampling import Compute, SampleOptions
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.cuda.rig import needs, once, together
from tests.faults.test_signals import begun
from tests.tiny import Told, contents
from tests.trained import left

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own
COMPILED = Compute(compile=True)
SET = (
    "training.save_every=8",
    "training.log_every=4",
    "training.grid_every=0",
    "model.dropout=0.1",
)


@pytest.fixture
def emptied(tmp_path, monkeypatch):
    """Give the compiler a cache that is empty, under a name."""

    def empty(name):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / name / "inductor"))
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / name / "triton"))

    return empty


@needs(2)
def test_compiled_sampling_on_two_gpus_makes_what_one_makes(emptied):
    for gpus in (1, 2):
        emptied(str(gpus))
        out = Path(f"compiled{gpus}.h5")
        options = as_typed(SampleOptions, num=256, out=out, compute=COMPILED)
        if gpus == 1:
            sample.run(options, Told())
        else:
            together(sample.run_in, options, gpus, Told())
    assert contents("compiled2.h5") == contents("compiled1.h5")


@needs(1)
def test_compiled_training_that_is_stopped_ends_in_the_same_bytes(emptied):
    """The process that continues compiles the network anew."""
    emptied("whole")
    values = {"preset": "tiny-base8", "overrides": SET, "steps": 24, "batch_size": 64}
    train.run(as_typed(TrainOptions, name="compiled", **values, compute=COMPILED), Told())
    emptied("stopped")
    told = once(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match="stopped by SIGTERM after step"):
        train.run(as_typed(TrainOptions, name="recompiled", **values, compute=COMPILED), told)
    flags = [word for assignment in SET for word in ("--set", assignment)]
    command = ["train", "recompiled", "--preset", "tiny-base8", "--steps", "24", "--compile"]
    emptied("continued")
    process = begun(*command, "--batch-size", "64", *flags)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert left(Path("runs/recompiled")) == left(Path("runs/compiled"))
