"""Checkpoints as the two openai packages write them: their names, random tensors."""

import torch
from torch import Tensor

from cdm_cli.cascade.foreign.openai_names import name_tensors
from cdm_cli.cascade.stage import build_net
from cdm_cli.config import (
    ConditioningConfig,
    ModelConfig,
    SamplingDefaults,
    ScheduleConfig,
    StageConfig,
)

ATTENTION = ("qkv.weight", "proj_out.weight")


def model(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "resolution": 16, "base_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1,
        "attention_resolutions": (8,), "num_heads": 4, "num_classes": 10,
    }  # fmt: skip
    return ModelConfig.model_validate(values | changes)


def stage(**changes: object) -> StageConfig:
    """What `stage_config` makes of a base model trained with default flags."""
    values: dict[str, object] = {
        "kind": "base", "model": model(), "schedule": ScheduleConfig(kind="linear", T=1000),
        "vlb_weight": 0.001, "time_offset": -1, "sampling": SamplingDefaults(respacing=""),
    }  # fmt: skip
    return StageConfig.model_validate(values | changes)


def sr_stage(**changes: object) -> StageConfig:
    conditioning = ConditioningConfig(resolution=8, gaussian=False)
    return stage(kind="sr", conditioning=conditioning, **changes)


def checkpoint(config: StageConfig) -> dict[str, Tensor]:
    """Return random tensors under the packages' names, 1x1 convolutions for attention."""
    generator = torch.Generator().manual_seed(3)
    table, result = name_tensors(config), {}
    for ours, tensor in build_net(config).state_dict().items():
        noise = 0.1 * torch.randn(tensor.shape, generator=generator)
        theirs = table[ours]
        result[theirs] = noise[..., None] if theirs.endswith(ATTENTION) else noise
    return result
