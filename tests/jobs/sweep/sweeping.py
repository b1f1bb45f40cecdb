"""A workspace for sweeps and searches, 4 to 8 pixels: a base store with z_s, data, a judge."""

from pathlib import Path

import torch

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.jobs.sampling import sample
from cdm_cli.metrics.features import ClassifierExtractor
from cdm_cli.nets.classifier import Classifier
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.sampling import Compute, SampleOptions
from cdm_cli.plans import DataInfo, Plan, StageFile, TrainingConfig
from tests.asking import as_typed
from tests.tiny import CLASSES, Told, arrays_of, base_config, write_stage, write_store

CPU = Compute(device="cpu", batch_size=32)
JUDGE = as_typed(FeatureOptions, features="judge", compute=CPU)
NUM, NUM_VAL = 66, 24  # the base store has two blocks


def write_judge(directory: Path, *, seed=0, classes=CLASSES) -> Path:
    """Write a classifier of random weights."""
    config = ClassifierConfig(
        resolution=8, base_channels=8, channel_mult=(1,), num_res_blocks=1,
        num_classes=len(classes),
    )  # fmt: skip
    directory.mkdir(parents=True)
    plan = Plan(preset="tiny", source="tests", stage=config, training=TrainingConfig(steps=1))
    data = DataInfo(name="data.h5", digest="d" * 64, classes=classes, num_train=30, num_val=NUM_VAL)
    write_stage_file(directory, StageFile(cdm_version="0", plan=plan, data=data))
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in Classifier(config).state_dict().items()
    }
    save_ema(directory, state, step=1)
    return directory


def write_workspace(directory: Path, sr) -> Path:
    """Write lowres.h5 with z/5 (by the real job), data.h5, runs/sr and runs/judge."""
    write_stage(directory / "runs/base", base_config(4))
    sample.run(
        as_typed(SampleOptions, num=NUM, keep_s=(5,), compute=CPU, out=directory / "lowres.h5"),
        Told(),
    )
    write_store(
        directory / "data.h5", "prepared",
        {"train": arrays_of(30, [4, 8]), "val": arrays_of(NUM_VAL, [4, 8], seed=1)},
    )  # fmt: skip
    write_stage(directory / "runs/sr", sr)
    write_judge(directory / "runs/judge")
    return directory


def judged_images(monkeypatch):
    """Count the images that the classifier is shown; returns a list of batch sizes."""
    seen, judge = [], ClassifierExtractor.__call__

    def call(self, images):
        seen.append(len(images))
        return judge(self, images)

    monkeypatch.setattr(ClassifierExtractor, "__call__", call)
    return seen


def files(folder: Path):
    """Return the bytes of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
