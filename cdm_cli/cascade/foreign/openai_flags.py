"""The flags of openai/guided-diffusion and openai/improved-diffusion, as their users type them.

Both packages keep a model's architecture on the command line and only tensors in the file.
Shapes tell most of it (`openai.py`); what they cannot tell is asked for here.
"""

import difflib
import shlex
from collections.abc import Iterable
from typing import Literal

from cdm_cli.errors import UsageError
from cdm_cli.names import Origin
from cdm_cli.settings import Settings, validate

EXAMPLE = '--flags "--image_size 64 --num_head_channels 64 --noise_schedule cosine …"'


class Flags(Settings):
    """What was said; None where it was not. Names and meanings are those of the packages."""

    image_size: int | None = None
    large_size: int | None = None
    small_size: int | None = None
    num_channels: int | None = None
    num_res_blocks: int | None = None
    channel_mult: str | None = None
    attention_resolutions: str | None = None
    num_heads: int | None = None
    num_heads_upsample: int | None = None
    num_head_channels: int | None = None
    use_scale_shift_norm: bool | None = None
    resblock_updown: bool | None = None
    use_new_attention_order: bool | None = None
    dropout: float | None = None
    class_cond: bool | None = None
    learn_sigma: bool | None = None
    sigma_small: bool | None = None
    diffusion_steps: int | None = None
    noise_schedule: Literal["linear", "cosine"] | None = None
    timestep_respacing: str | None = None
    use_ddim: bool | None = None
    use_kl: bool | None = None
    predict_xstart: bool | None = None
    rescale_timesteps: bool | None = None
    rescale_learned_sigmas: bool | None = None


# Flags of their scripts that say nothing about the model.
IGNORED = frozenset(
    "anneal_lr base_name base_samples batch_size classifier_path classifier_scale clip_denoised "
    "data_dir ema_rate fp16_scale_growth log_interval lr lr_anneal_steps microbatch model_path "
    "num_samples resume_checkpoint save_interval schedule_sampler use_checkpoint use_fp16 "
    "weight_decay".split()
)
ONLY_GUIDED = frozenset(
    "num_head_channels resblock_updown use_new_attention_order channel_mult use_fp16".split()
)
ONLY_IMPROVED = frozenset(["sigma_small"])

_ADM = "--attention_resolutions 32,16,8 --learn_sigma True --resblock_updown True "
_64 = "--image_size 64 --learn_sigma True --num_res_blocks 3 --diffusion_steps 4000 "
_LSUN_2021 = (
    "--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True "
    "--use_scale_shift_norm False --attention_resolutions 16 --diffusion_steps 1000 "
    "--noise_schedule linear --rescale_timesteps False --rescale_learned_sigmas False"
)
_LSUN = _ADM + "--class_cond False --image_size 256 --noise_schedule linear --num_head_channels 64"

# The models that the two READMEs publish, by the name of the file, and their flags.
PUBLISHED: dict[str, tuple[Origin, str]] = {
    "64x64_diffusion.pt": (
        "guided-diffusion",
        _ADM + "--class_cond True --image_size 64 --noise_schedule cosine "
        "--num_head_channels 64 --use_new_attention_order True --dropout 0.1",
    ),
    "128x128_diffusion.pt": (
        "guided-diffusion",
        _ADM + "--class_cond True --image_size 128 --noise_schedule linear --num_heads 4",
    ),
    "256x256_diffusion.pt": (
        "guided-diffusion",
        _ADM + "--class_cond True --image_size 256 --noise_schedule linear --num_head_channels 64",
    ),
    "256x256_diffusion_uncond.pt": (
        "guided-diffusion",
        _ADM + "--class_cond False --image_size 256 --noise_schedule linear --num_head_channels 64",
    ),
    "512x512_diffusion.pt": (
        "guided-diffusion",
        _ADM + "--class_cond True --image_size 512 --noise_schedule linear --num_head_channels 64",
    ),
    "64_256_upsampler.pt": (
        "guided-diffusion",
        _ADM + "--class_cond True --large_size 256 --small_size 64 --noise_schedule linear "
        "--num_heads 4",
    ),
    "128_512_upsampler.pt": (
        "guided-diffusion",
        "--attention_resolutions 32,16 --learn_sigma True --resblock_updown True "
        "--class_cond True --large_size 512 --small_size 128 --noise_schedule linear "
        "--num_head_channels 64",
    ),
    "lsun_bedroom.pt": ("guided-diffusion", _LSUN + " --dropout 0.1"),
    "lsun_cat.pt": ("guided-diffusion", _LSUN + " --dropout 0.1"),
    "lsun_horse.pt": ("guided-diffusion", _LSUN + " --dropout 0.1"),
    "lsun_horse_nodropout.pt": ("guided-diffusion", _LSUN),
    "imagenet64_uncond_100M_1500K.pt": ("improved-diffusion", _64 + "--noise_schedule cosine"),
    "imagenet64_uncond_vlb_100M_1500K.pt": (
        "improved-diffusion",
        _64 + "--noise_schedule cosine --use_kl True",
    ),
    "imagenet64_cond_270M_250K.pt": (
        "improved-diffusion",
        _64 + "--noise_schedule cosine --class_cond True --rescale_timesteps False "
        "--rescale_learned_sigmas False",
    ),
    "upsample_cond_500K.pt": (
        "improved-diffusion",
        "--large_size 256 --small_size 64 --learn_sigma True --class_cond True "
        "--diffusion_steps 4000 --noise_schedule linear --rescale_timesteps False "
        "--rescale_learned_sigmas False",
    ),
    "cifar10_uncond_50M_500K.pt": (
        "improved-diffusion",
        "--image_size 32 --learn_sigma True --dropout 0.3 --diffusion_steps 4000 "
        "--noise_schedule cosine",
    ),
    "cifar10_uncond_vlb_50M_500K.pt": (
        "improved-diffusion",
        "--image_size 32 --learn_sigma True --dropout 0.3 --diffusion_steps 4000 "
        "--noise_schedule cosine --use_kl True",
    ),
    "lsun_uncond_100M_1200K_bs128.pt": ("improved-diffusion", _LSUN_2021),
    "lsun_uncond_100M_2400K_bs64.pt": ("improved-diffusion", _LSUN_2021),
}


def parse_flags(texts: Iterable[str]) -> tuple[Flags, frozenset[str]]:
    """Read pasted flags, `--name value`, `--name=value` or `name=value`, the last one winning.

    Returns them and all names that occurred. Raises UsageError for an unknown flag, naming
    the nearest, and for a value of the wrong type.
    """
    values: dict[str, str] = {}
    for text in texts:
        values.update(_parse_pairs(text))
    for name in values:
        if name not in Flags.model_fields and name not in IGNORED:
            near = difflib.get_close_matches(name, Flags.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else "neither package has it"
            raise UsageError(f"--flags: unknown flag {name}; {hint}", next=EXAMPLE)
    known = {name: value for name, value in values.items() if name in Flags.model_fields}
    return validate(Flags, known, source="--flags"), frozenset(values)


def _parse_pairs(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--flags {text!r}: {error}", next=EXAMPLE) from None
    pairs: dict[str, str] = {}
    while words:
        name, equals, value = words.pop(0).lstrip("-").partition("=")
        if not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(f"--flags: {name} has no value", next=EXAMPLE)
            value = words.pop(0)
        pairs[name] = value
    return pairs


def find_package(names: frozenset[str], said: Origin | None) -> Origin | None:
    """Return which package the flags belong to, where one of them tells; said goes first."""
    if said is not None:
        return said
    if names & ONLY_IMPROVED:
        return "improved-diffusion"
    return "guided-diffusion" if names & ONLY_GUIDED else None
