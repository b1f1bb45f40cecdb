"""Stages so small that a test samples them in milliseconds; weights random, output not zero."""

from pathlib import Path

import torch

from cdm_cli.cascade.checkpoint import save_ema, write_stage_file
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.config import (
    ConditioningConfig,
    DataInfo,
    ModelConfig,
    Plan,
    SamplingDefaults,
    ScheduleConfig,
    StageConfig,
    StageFile,
    TrainingConfig,
)

CLASSES = ("disk", "ring", "tench, Tinca tinca")
COSINE = ScheduleConfig(kind="cosine", T=20)
LINEAR = ScheduleConfig(kind="linear", T=50)


def model(resolution, **changes):
    values = {
        "resolution": resolution, "channels": 3, "base_channels": 8, "channel_mult": (1, 2),
        "num_res_blocks": 1, "norm_groups": 4, "num_classes": len(CLASSES),
    }  # fmt: skip
    return ModelConfig(**(values | changes))


def base_config(resolution=8, *, steps=4, schedule=COSINE, **changes):
    return StageConfig(
        kind="base", model=model(resolution, **changes), schedule=schedule,
        sampling=SamplingDefaults(steps=steps),
    )  # fmt: skip


def sr_config(low=8, resolution=16, *, steps=3, **changes):
    values = {
        "kind": "sr", "model": model(resolution), "schedule": COSINE,
        "conditioning": ConditioningConfig(resolution=low, z_schedule=COSINE),
        "sampling": SamplingDefaults(steps=steps),
    }  # fmt: skip
    return StageConfig(**(values | changes))


def continuous_config(low=8, resolution=16, *, steps=5):
    """Like the paper's large stages: fixed variance, blur, fed the noise level itself."""
    return sr_config(
        low, resolution, steps=steps, schedule=LINEAR, variance="small", loss="simple",
        time_input="sqrt_alpha_bar",
        conditioning=ConditioningConfig(
            resolution=low, z_schedule=COSINE, gaussian=False, blur=True
        ),
    )  # fmt: skip


def net_of(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    net = build_net(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def stage_of(config, seed=0, classes=CLASSES):
    return Stage(config, classes, net_of(config, seed), name="tiny", digest="0" * 64)


def write_stage(directory: Path, config, seed=0, classes=CLASSES, data_digest="d" * 64) -> Path:
    """Write the directory of a stage that was "trained" (its weights are random)."""
    directory.mkdir(parents=True)
    plan = Plan(preset="tiny", source="tests", stage=config, training=TrainingConfig(steps=1))
    data = DataInfo(name="data.h5", digest=data_digest, classes=classes, num_train=64, num_val=32)
    write_stage_file(directory, StageFile(cdm_version="0", plan=plan, data=data))
    save_ema(directory, net_of(config, seed).state_dict(), step=1)
    return directory
