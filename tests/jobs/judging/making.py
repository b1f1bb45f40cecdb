"""Stores to judge and a tiny classifier that judges them, in the current directory."""

from pathlib import Path

import numpy as np
import torch

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.metrics.features import ClassifierExtractor
from cdm_cli.nets.classifier import Classifier
from cdm_cli.options.judging import EvalOptions, FeatureOptions
from cdm_cli.options.sampling import Compute
from cdm_cli.plans import DataInfo, Plan, StageFile, TrainingConfig
from tests.asking import as_typed
from tests.tiny import CLASSES, arrays_of, write_store

CONFIG = ClassifierConfig(
    resolution=8, base_channels=16, channel_mult=(1,), num_res_blocks=1, num_classes=len(CLASSES)
)
CPU = Session(torch.device("cpu"))
TRAIN, VAL, SAMPLES = (arrays_of(num, (8, 16), seed=seed) for seed, num in enumerate((90, 60, 75)))


def write_judge(directory: Path, *, seed=0, classes=CLASSES) -> Path:
    """Write a classifier of random weights, whose features spread."""
    directory.mkdir(parents=True)
    plan = Plan(preset="tiny", source="tests", stage=CONFIG, training=TrainingConfig(steps=1))
    data = DataInfo(name="data.h5", digest="d" * 64, classes=classes, num_train=90, num_val=60)
    write_stage_file(directory, StageFile(cdm_version="0", plan=plan, data=data))
    generator = torch.Generator().manual_seed(seed)
    net = Classifier(CONFIG)
    state = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in net.state_dict().items()
    }
    save_ema(directory, state, step=1)
    return directory


def write_workspace(directory: Path) -> None:
    """Write data.h5, samples.h5 and runs/judge."""
    write_store(directory / "data.h5", "prepared", {"train": TRAIN, "val": VAL})
    write_store(directory / "samples.h5", "samples", {"": SAMPLES})
    write_judge(directory / "runs/judge")


def options(*metrics, features="judge", compute=None, **changes):
    """Return the options of `cdm eval` for the workspace, at 8 pixels on a CPU."""
    compute = compute or Compute(device="cpu", batch_size=16)
    judge = {"features": features, "compute": compute}
    judge |= {name: changes.pop(name) for name in ("ref", "mode") if name in changes}
    values = {
        "metrics": metrics or ("fid",),
        "resolution": 8,
        "judge": as_typed(FeatureOptions, **judge),
    }
    return as_typed(EvalOptions, **(values | changes))


def permuted(arrays, order):
    """Return the same samples in another order of the file."""
    return {name: array[order] for name, array in arrays.items()}


def counted(monkeypatch):
    """Count the images that the classifier is shown; returns a list of batch sizes."""
    seen, judge = [], ClassifierExtractor.__call__

    def call(self, images):
        seen.append(len(images))
        return judge(self, images)

    monkeypatch.setattr(ClassifierExtractor, "__call__", call)
    return seen


def with_images(arrays, rows, images, *, resolution=8):
    """Return a copy of a part in which these rows show these images."""
    changed = arrays[f"images/{resolution}"].copy()
    changed[rows] = images
    return arrays | {f"images/{resolution}": np.ascontiguousarray(changed)}
