"""Appendix B of the paper as data, and smaller models of the same kind.

A preset is a starting point: `num_classes`, `channels` and (for the classifier) the
resolution are taken from the data that it is trained on.
"""

from collections.abc import Mapping
from typing import Any

from cdm_cli.config import (
    ClassifierConfig,
    ConditioningConfig,
    ModelConfig,
    SamplingDefaults,
    ScheduleConfig,
    StageConfig,
)
from cdm_cli.errors import UsageError
from cdm_cli.options.training import TrainOptions
from cdm_cli.overrides import with_overrides
from cdm_cli.plans import Plan, TrainingConfig
from cdm_cli.sentences import suggest_near
from cdm_cli.settable import list_settings_of

COSINE = ScheduleConfig(kind="cosine", T=4000)
LINEAR = ScheduleConfig(kind="linear", T=2000)
IMAGENET = 1000


def _unet(resolution: int, base: int, mult: tuple[int, ...], blocks: int, heads: int = 4,
          attention: tuple[int, ...] = (8, 16), dropout: float = 0.1,
          num_classes: int = IMAGENET) -> ModelConfig:  # fmt: skip
    return ModelConfig(
        resolution=resolution,
        base_channels=base,
        channel_mult=mult,
        num_res_blocks=blocks,
        attention_resolutions=attention,
        num_heads=heads,
        dropout=dropout,
        num_classes=num_classes,
    )


def _few(steps: int) -> SamplingDefaults:
    """Steps that have the FID of all T on small trained stages, about (docs/performance.md)."""
    return SamplingDefaults(sampler="sde-dpm-solver++", steps=steps)


def _base(model: ModelConfig, steps: int = 100) -> StageConfig:
    return StageConfig(kind="base", model=model, schedule=COSINE, sampling=_few(steps))


def _sr(model: ModelConfig, low: int, steps: int = 25) -> StageConfig:
    """Gaussian conditioning augmentation, amortised over s (Section 3.2)."""
    return StageConfig(
        kind="sr",
        model=model,
        schedule=COSINE,
        conditioning=ConditioningConfig(resolution=low, z_schedule=COSINE),
        sampling=_few(steps),
    )


def _large_sr(model: ModelConfig, low: int) -> StageConfig:
    """Blur augmentation and continuous noise conditioning (Section 4.4, Appendix B).

    The paper is silent on the fixed variance and on alpha_bar or its root as the input;
    "small" and the root, embedded at 1000 times its size, are our choice. So is what "similar
    to SR3" means for the network: residual sums divided by sqrt(2), which has no parameters.
    """
    return StageConfig(
        kind="sr",
        model=model.model_copy(update={"skip_rescale": True}),
        schedule=LINEAR,
        variance="small",
        loss="simple",
        time_input="sqrt_alpha_bar",
        conditioning=ConditioningConfig(
            resolution=low, z_schedule=COSINE, gaussian=False, blur=True
        ),
        sampling=SamplingDefaults(steps=100),
    )


def _imagenet(steps: int, batch_size: int = 2048, lr: float = 1e-4) -> TrainingConfig:
    return TrainingConfig(steps=steps, batch_size=batch_size, lr=lr, ema_decay=0.9999)


def _cifar(steps: int) -> TrainingConfig:
    return TrainingConfig(steps=steps, batch_size=512, lr=3e-4, warmup=200, ema_decay=0.9995)


def _tiny(steps: int, batch_size: int = 64) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        lr=2e-3,
        warmup=50,
        ema_decay=0.995,
        save_every=500,
        grid_every=steps,
    )


def _cifar_unet(resolution: int, dropout: float = 0.1) -> ModelConfig:
    mult = (1, 2, 2) if resolution > 8 else (1, 2)
    return _unet(resolution, 128, mult, 3, 4, (8, 16), dropout, num_classes=10)


def _tiny_unet(resolution: int, base: int) -> ModelConfig:
    """8 groups: in 32 of one channel each the last norm would hide the mean colour of x_t."""
    mult = (1, 2, 2) if resolution > 16 else (1, 2)
    unet = _unet(resolution, base, mult, 1, 2, (8,), 0.0, num_classes=10)
    return unet.model_copy(update={"norm_groups": 8})


def _tiny_sr(model: ModelConfig, low: int, steps: int) -> StageConfig:
    """What a short training needs so that samples follow their input.

    Norms over all channels, since in groups of two they hide mean colours, of the input, too. s
    up to 1000 of 4000: of uniform s three in four would be nearly noise, learned in vain.
    """
    stage = _sr(model.model_copy(update={"norm_groups": 1}), low, steps)
    assert stage.conditioning is not None
    seen = stage.conditioning.model_copy(update={"s_max": 1000})
    return stage.model_copy(update={"conditioning": seen})


def _of_today(plan: Plan) -> Plan:
    """Key what training draws by places; a file that does not say so is of an older training."""
    training = plan.training.model_copy(update={"keyed_by": "place"})
    return plan.model_copy(update={"training": training})


PAPER, SECTION_4 = "paper, Appendix B", "paper, Section 4"

PRESETS: dict[str, Plan] = {
    plan.preset: _of_today(plan)
    for plan in (
        Plan(preset="imagenet-base32", source=PAPER,
             stage=_base(_unet(32, 256, (1, 2, 3, 4), 6)), training=_imagenet(700_000)),
        Plan(preset="imagenet-sr32-64", source=PAPER,
             stage=_sr(_unet(64, 256, (1, 2, 3, 4), 5), 32), training=_imagenet(400_000)),
        Plan(preset="imagenet-sr64-128", source=PAPER,
             stage=_large_sr(_unet(128, 128, (1, 2, 4, 8, 8), 3, 1, (16,), 0.0), 64),
             training=_imagenet(500_000, 1024)),
        Plan(preset="imagenet-sr64-256", source=PAPER,
             stage=_large_sr(_unet(256, 128, (1, 2, 4, 4, 8, 8), 3, 1, (16,), 0.0), 64),
             training=_imagenet(500_000, 1024)),
        Plan(preset="imagenet-base16", source=f"{SECTION_4}, network after Appendix B",
             stage=_base(_unet(16, 256, (1, 2, 3), 6)), training=_imagenet(500_000)),
        Plan(preset="imagenet-sr16-64", source=f"{SECTION_4}, network of Improved DDPM",
             stage=_sr(_unet(64, 192, (1, 2, 3, 4), 3), 16),
             training=_imagenet(500_000, lr=3e-4)),
        Plan(preset="imagenet-base64", source=f"{SECTION_4}, network of Improved DDPM",
             stage=_base(_unet(64, 192, (1, 2, 3, 4), 3)), training=_imagenet(500_000, lr=3e-4)),
        Plan(preset="cifar-base8", source="small, for one GPU",
             stage=_base(_cifar_unet(8)), training=_cifar(10_000)),
        Plan(preset="cifar-base16", source="small, for one GPU",
             stage=_base(_cifar_unet(16)), training=_cifar(15_000)),
        Plan(preset="cifar-base32", source="small, for one GPU",
             stage=_base(_cifar_unet(32)), training=_cifar(30_000)),
        Plan(preset="cifar-sr8-32", source="small, for one GPU",
             stage=_sr(_cifar_unet(32), 8), training=_cifar(15_000)),
        Plan(preset="cifar-sr16-32", source="small, for one GPU",
             stage=_sr(_cifar_unet(32), 16), training=_cifar(15_000)),
        Plan(preset="tiny-base8", source="for a CPU, the demo and tests",
             stage=_base(_tiny_unet(8, 24), 25), training=_tiny(2000)),
        Plan(preset="tiny-base16", source="for a CPU, the demo and tests",
             stage=_base(_tiny_unet(16, 32), 50), training=_tiny(2000)),
        Plan(preset="tiny-sr8-16", source="for a CPU, the demo and tests",
             stage=_tiny_sr(_tiny_unet(16, 16), 8, 20), training=_tiny(1000, 32)),
        Plan(preset="tiny-sr16-32", source="for a CPU, the demo and tests",
             stage=_tiny_sr(_tiny_unet(32, 16), 16, 25), training=_tiny(1000)),
        Plan(preset="classifier", source="features and class probabilities for cdm eval",
             stage=ClassifierConfig(),
             training=TrainingConfig(steps=5000, batch_size=256, lr=1e-3, weight_decay=1e-4,
                                     warmup=100, ema_decay=0.999, crop_pad=2, grid_every=0)),
        Plan(preset="tiny-classifier", source="for a CPU, the demo and tests",
             stage=ClassifierConfig(base_channels=24, channel_mult=(1, 2), num_res_blocks=1),
             training=TrainingConfig(steps=250, batch_size=64, lr=2e-3, weight_decay=1e-4,
                                     warmup=50, ema_decay=0.99, crop_pad=1, grid_every=0)),
    )
}  # fmt: skip


def preset(name: str) -> Plan:
    """Return the plan of that name; raise UsageError naming the nearest for an unknown one."""
    if name in PRESETS:
        return PRESETS[name]
    raise UsageError(
        suggest_near(f"--preset {name}: there is no such preset", name, PRESETS),
        next="cdm train --list-presets",
    )


def plan_of_preset(name: str, overrides: tuple[str, ...]) -> Plan:
    """Return the plan of a preset with `--set` applied; raise UsageError for what cannot be."""
    return with_overrides(preset(name), overrides)


def check_asked(options: TrainOptions) -> None:
    """Raise UsageError where `cdm train` is asked for a preset or for settings that cannot be."""
    if options.preset is not None:
        plan_of_preset(options.preset, options.overrides)


def settings_rows(typed: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row for each setting, as `cdm train --list-settings` shows them.

    typed: the parsed flags; with --preset, and --set, the settings and values of that plan.
    """
    name, changes = typed.get("preset"), typed.get("overrides") or ()
    return list_settings_of(plan_of_preset(name, tuple(changes)) if name else None)


def preset_rows(typed: Mapping[str, Any]) -> list[dict[str, str | int]]:
    """Return one row for each preset, as `cdm train --list-presets` shows them."""
    del typed
    return [_row(plan) for plan in PRESETS.values()]


def _row(plan: Plan) -> dict[str, str | int]:
    stage = plan.stage
    sides = "of the data" if isinstance(stage, ClassifierConfig) else str(stage.model.resolution)
    if isinstance(stage, StageConfig) and stage.conditioning:
        sides = f"{stage.conditioning.resolution} -> {sides}"
    return {
        "preset": plan.preset,
        "kind": stage.kind,
        "resolution": sides,
        "steps": plan.training.steps,
        "batch_size": plan.training.batch_size,
        "source": plan.source,
    }
