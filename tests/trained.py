"""Training runs so small that a test takes one in a fraction of a second, and what they leave."""

import json

import torch

from cdm_cli.jobs.sampling.probe import build_averaged
from cdm_cli.jobs.training.train import run
from cdm_cli.options.sampling import Compute
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.tiny import Told, arrays_of, write_store

SMALL = (
    "model.base_channels=8", "model.channel_mult=[1]", "model.norm_groups=4",
    "model.attention_resolutions=[]", "schedule.T=20", "sampling.steps=3", "training.warmup=2",
    "training.lr=0.001", "training.log_every=1", "training.save_every=2", "training.grid_every=0",
)  # fmt: skip
SR = (*SMALL, "conditioning.z_schedule.T=20", "conditioning.s_max=20")
CLASSIFIER = (
    "base_channels=8", "channel_mult=[1]", "training.warmup=2", "training.log_every=1",
    "training.save_every=2",
)  # fmt: skip


def write_data(path, num=24, num_val=12, seed=0):
    """Write a prepared store of 8×8 and 16×16 images, three classes."""
    train, val = arrays_of(num, (8, 16), seed=seed), arrays_of(num_val, (8, 16), seed=seed + 1)
    return write_store(path, "prepared", {"train": train, "val": val})


def options(tmp_path, *more, name="base", preset="tiny-base8", small=SMALL, **changes):
    """Return options of a run on tmp_path/data.h5; more: further --set assignments."""
    values = {
        "name": name, "preset": preset, "data": tmp_path / "data.h5", "runs": tmp_path / "runs",
        "overrides": (*small, *more), "steps": 5, "batch_size": 8,
        "compute": Compute(device="cpu"),
    }  # fmt: skip
    return as_typed(TrainOptions, **(values | changes))


def train(tmp_path, *more, told=None, **changes):
    """Run it; returns the result."""
    return run(options(tmp_path, *more, **changes), told or Told())


def overflowing(stage, ema, **more):
    """Return what `build_averaged` returns, its weights so large that activations overflow."""
    own = build_averaged(stage, ema, **more)
    with torch.no_grad():
        for parameter in own.net.parameters():
            parameter.add_(1).mul_(1e18)
    return own


def left(directory):
    """Return all that a run ends with and that must not depend on how it got there."""
    paths = [directory / "ema.safetensors", *sorted(directory.glob("checkpoints/*/*"))]
    files = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
    return files | {"metrics": rows(directory, but=("images_per_second",))}


def rows(directory, *, but=()):
    """Return the rows of metrics.jsonl."""
    lines = (directory / "metrics.jsonl").read_bytes().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in but} for line in lines]
