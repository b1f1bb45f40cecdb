"""Checkpoints of openai/guided-diffusion and openai/improved-diffusion as stages.

Their files hold tensors only. Widths, depth, attention, AdaGN, the kind of resampling, classes
and learned variance follow from names and shapes; resolution, heads, schedule and times
follow from the flags. A flag that contradicts a shape is an error.

Three conventions differ from ours: their times count from 0 (`time_offset = -1`), their
super-resolution networks see the clean low-resolution image (`gaussian = False`), and their
fixed variance is the large one.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from cdm_cli.cascade.foreign.openai_flags import EXAMPLE, Flags
from cdm_cli.config import (
    ConditioningConfig,
    ModelConfig,
    SamplingDefaults,
    ScheduleConfig,
    StageConfig,
)
from cdm_cli.diffusion.schedules import list_openai_times
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.names import Origin
from cdm_cli.settings import validate
from cdm_cli.units import format_count

NUM_HEADS, STEPS = 4, 1000  # the defaults of both packages
RESPACING = re.compile(r"ddim\d{1,9}|\d{1,9}(,\d{1,9})*")
MAX_CHANNELS = 4


class Seen(NamedTuple):
    """What names and shapes tell of a network."""

    num_channels: int
    in_channels: int
    out_channels: int
    num_res_blocks: int
    channel_mult: tuple[int | float, ...]
    attention_levels: tuple[int, ...]
    use_scale_shift_norm: bool
    resblock_updown: bool
    num_classes: int


def read_architecture(tensors: Mapping[str, Tensor], source: str) -> Seen:
    """Read the architecture off the tensors; raise MismatchError where there is none."""
    base = _read_shape(tensors, "time_embed.0.weight", source)[1]
    last = [int(m[1]) for name in tensors if (m := re.match(r"output_blocks\.(\d{1,4})\.", name))]
    if not last:
        raise MismatchError(
            f"{source} has no output_blocks: it is a classifier or no U-Net at all",
            next="import a diffusion model",
        )
    count = max(last) + 1
    period, updown = _find_first_resize(tensors, count)
    levels = [1 + level * period for level in range(count // period)]
    widths = [
        _read_shape(tensors, f"input_blocks.{i}.0.out_layers.3.weight", source)[0] for i in levels
    ]
    modulation = _read_shape(tensors, "input_blocks.1.0.emb_layers.1.weight", source)[0]
    label_emb = tensors.get("label_emb.weight")
    return Seen(
        num_channels=base,
        in_channels=_read_shape(tensors, "input_blocks.0.0.weight", source)[1],
        out_channels=_read_shape(tensors, "out.2.weight", source)[0],
        num_res_blocks=period - 1,
        channel_mult=tuple(w // base if w % base == 0 else w / base for w in widths),
        attention_levels=tuple(
            level for level, i in enumerate(levels) if f"input_blocks.{i}.1.qkv.weight" in tensors
        ),
        use_scale_shift_norm=modulation == 2 * widths[0],
        resblock_updown=updown,
        num_classes=0 if label_emb is None else len(label_emb),
    )


def _find_first_resize(tensors: Mapping[str, Tensor], count: int) -> tuple[int, bool]:
    """Return how many output blocks a level has, and whether residual blocks resample."""
    for i in range(count):
        for part in (1, 2):
            if f"output_blocks.{i}.{part}.in_layers.0.weight" in tensors:
                return i + 1, True
            if f"output_blocks.{i}.{part}.conv.weight" in tensors:
                return i + 1, False
    return count, False


def _read_shape(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].dim() < 2:
        raise MismatchError(
            f"{source} has no weight {name}, which every U-Net of guided-diffusion and "
            "improved-diffusion has",
            next="import a diffusion model of one of the two",
        )
    return tuple(tensors[name].shape)


def stage_config(
    tensors: Mapping[str, Tensor], flags: Flags, origin: Origin | None, source: str
) -> StageConfig:
    """Return the stage that a checkpoint is, from its tensors and flags.

    Raises UsageError where a flag is missing or has no counterpart here, and MismatchError
    where a flag contradicts the tensors.
    """
    found = read_architecture(tensors, source)
    upsamples = flags.large_size is not None or flags.small_size is not None
    channels = found.in_channels // 2 if upsamples else found.in_channels
    if channels > MAX_CHANNELS or found.out_channels not in (channels, 2 * channels):
        raise MismatchError(
            f"{source} takes {format_count(found.in_channels, 'channel')} and returns "
            f"{found.out_channels}: "
            + ("no super-resolution network" if upsamples else "large_size and small_size missing"),
            next='--flags "--large_size 256 --small_size 64 …"',
        )
    learned = found.out_channels == 2 * channels
    resolution = flags.large_size if upsamples else flags.image_size
    if resolution is None:
        name = "large_size" if upsamples else "image_size"
        raise UsageError(f"--flags: {name} is missing, and no tensor tells it", next=EXAMPLE)
    model = _build_model(found, flags, channels, resolution)
    _compare(model, found, flags, learned, source)
    values = {
        "kind": "sr" if upsamples else "base",
        "model": model,
        **_build_process(flags, origin, learned),
        "time_offset": -1,
        "conditioning": _build_conditioning(flags) if upsamples else None,
        "sampling": _build_sampling(flags, flags.diffusion_steps or STEPS),
    }
    return validate(StageConfig, values, source="--flags")


def _build_model(found: Seen, flags: Flags, channels: int, resolution: int) -> ModelConfig:
    heads = flags.num_heads or NUM_HEADS
    width = flags.num_head_channels if (flags.num_head_channels or -1) > 0 else None
    if (flags.num_heads_upsample or -1) not in (-1, heads) and width is None:
        raise UsageError(
            f"--flags: num_heads_upsample = {flags.num_heads_upsample} differs from num_heads = "
            f"{heads}; a stage has one number of heads",
            next="another checkpoint",
        )
    values = {
        "resolution": resolution,
        "channels": channels,
        "base_channels": found.num_channels,
        "channel_mult": found.channel_mult,
        "num_res_blocks": found.num_res_blocks,
        "attention_resolutions": tuple(resolution >> level for level in found.attention_levels),
        "num_heads": heads,
        "head_channels": width,
        "dropout": flags.dropout or 0.0,
        "scale_shift": found.use_scale_shift_norm,
        "resblock_updown": found.resblock_updown,
        "qkv_order": "new" if flags.use_new_attention_order else "legacy",
        "num_classes": found.num_classes,
    }
    return validate(ModelConfig, values, source="--flags")


def _compare(model: ModelConfig, found: Seen, flags: Flags, learned: bool, source: str) -> None:
    """Raise MismatchError for the first flag that contradicts the tensors."""
    sides = [model.resolution >> level for level in range(len(found.channel_mult))]
    said_levels = None
    if flags.attention_resolutions is not None:
        rates = {model.resolution // max(1, r) for r in _parse_numbers(flags.attention_resolutions)}
        said_levels = tuple(level for level in range(len(sides)) if 1 << level in rates)
    mult = tuple(_parse_numbers(flags.channel_mult)) if flags.channel_mult else None
    pairs = {
        "num_channels": (flags.num_channels, found.num_channels),
        "num_res_blocks": (flags.num_res_blocks, found.num_res_blocks),
        "channel_mult": (mult, found.channel_mult),
        "attention_resolutions": (said_levels, found.attention_levels),
        "use_scale_shift_norm": (flags.use_scale_shift_norm, found.use_scale_shift_norm),
        "resblock_updown": (flags.resblock_updown, found.resblock_updown),
        "class_cond": (flags.class_cond, found.num_classes > 0),
        "learn_sigma": (flags.learn_sigma, learned),
    }
    for name, (said, shown) in pairs.items():
        if said is not None and said != shown:
            if name == "attention_resolutions":
                shown = tuple(sides[level] for level in found.attention_levels)
            raise MismatchError(
                f"{source}: --flags say {name} = {getattr(flags, name)}, the tensors show {shown}",
                kept="nothing was written",
                next="leave the flag out, or correct image_size",
            )


def _parse_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise UsageError(f"--flags: {text!r} is no list of numbers", next=EXAMPLE) from None


def _build_process(flags: Flags, origin: Origin | None, learned: bool) -> dict[str, object]:
    """Return schedule, variance, loss and time of a stage."""
    if flags.predict_xstart:
        raise UsageError(
            "--flags: predict_xstart: only networks that predict eps are stages",
            next="another checkpoint",
        )
    T = flags.diffusion_steps or STEPS
    improved = origin == "improved-diffusion"
    rescale_time, rescale_loss = flags.rescale_timesteps, flags.rescale_learned_sigmas
    if rescale_time is None and origin is None and T != 1000:
        raise UsageError(
            f"--flags: rescale_timesteps is missing: with {T} steps the times that the network "
            "is fed depend on it, and the two packages differ in its default",
            next="--origin improved-diffusion, or --flags rescale_timesteps=…",
        )
    rescale_time = improved if rescale_time is None else rescale_time
    rescale_loss = improved if rescale_loss is None else rescale_loss
    fixed = "small" if flags.sigma_small else "large"
    return {
        "schedule": ScheduleConfig(kind=flags.noise_schedule or "linear", T=T),
        "variance": "learned" if learned else fixed,
        "loss": "simple" if not learned else "vlb" if flags.use_kl else "hybrid",
        "vlb_weight": 0.001 if rescale_loss else 1 / T,  # weight per term: T / 1000, or 1
        "rescale_time": rescale_time,
    }


def _build_conditioning(flags: Flags) -> ConditioningConfig:
    if flags.small_size is None:
        raise UsageError("--flags: small_size is missing", next='--flags "… --small_size 64"')
    values = {"resolution": flags.small_size, "gaussian": False}
    return validate(ConditioningConfig, values, source="--flags")


def _build_sampling(flags: Flags, T: int) -> SamplingDefaults:
    """Return how the stage is sampled: as often, and at the times, that its packages would."""
    text = (flags.timestep_respacing or "").replace(" ", "")
    ddim = flags.use_ddim or text.startswith("ddim")
    sampler = "ddim" if ddim else "ancestral"
    if text in ("", str(T)):
        return SamplingDefaults(sampler=sampler, respacing="")
    try:
        steps = len(list_openai_times(T, text))
    except ValueError as error:
        told = str(error) if RESPACING.fullmatch(text) else "expected 250, 10,10,20 or ddim25"
        raise UsageError(
            f"--flags: timestep_respacing {text}: {told}", next="correct it, or leave it out"
        ) from None
    return SamplingDefaults(sampler=sampler, steps=steps, respacing=text)
