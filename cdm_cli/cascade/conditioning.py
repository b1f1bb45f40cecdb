"""What a super-resolution stage is conditioned on when it samples (Sections 3.1 to 3.3).

Three origins of z_s, all at LOW resolution; the network enlarges it:

- truncated: the state at s of the reverse pass that made z_0, kept in the store as z/<s>;
- non-truncated: z'_s ~ q(z_s | z_0), drawn once for each sample and held for its whole chain;
- ground truth: the same draw on real images, from a prepared store.

At s = 0 all of them are z_0 itself, as stored in bytes, which is what training saw too. Blur
augmentation belongs to training alone (Section 3.1): a stage without Gaussian conditioning
augmentation is always given z_0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cdm_cli.cascade.generate import name_noise
from cdm_cli.config import ConditioningConfig, StageConfig
from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion.augment import gaussian
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.schedules import from_config
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.names import Augment


def check_s(config: StageConfig, s: int | None, augment: Augment | None = None) -> int:
    """Return the s at which the stage is sampled; raise UsageError for one it was not trained on.

    s None: not given, which only a stage without Gaussian conditioning augmentation allows: it
    was trained on s = 0 alone.
    """
    conditioning = config.conditioning
    assert conditioning is not None
    if not conditioning.gaussian:
        if s or augment == "truncated":
            raise UsageError(
                "--s: the stage was trained without Gaussian conditioning augmentation, "
                "so it takes s = 0 only",
                next="leave out --s and --augment",
            )
        return 0
    low, high = conditioning.s_min, conditioning.highest_s
    advised = find_nearest_s(conditioning, s)
    if s is None:
        raise UsageError(
            f"--s is missing: the stage takes {low}..{high}",
            next=f"--s {advised}, or cdm sweep-s, which finds the best",
        )
    if s != advised:
        raise UsageError(
            f"--s {s}: the stage was trained on s = {low}..{high}", next=f"--s {advised}"
        )
    return s


def find_nearest_s(conditioning: ConditioningConfig, s: int | None) -> int:
    """Return the nearest s that training has drawn; for None, one at a quarter of its range."""
    if not conditioning.gaussian:
        return 0
    low, high = conditioning.s_min, conditioning.highest_s
    if s is None:
        return low + (high - low) // 4
    return s if s == 0 and conditioning.s_zero > 0 else min(max(s, low), high)


def check_same_process(
    conditioning: ConditioningConfig, kept: Sequence[float], s: Sequence[int], path: object
) -> None:
    """Raise MismatchError unless a store's z/<s> have the noise level of z_schedule at every s.

    kept: alpha_bar of the process that made z/<s>, indexed by its time. Truncated states are
    inputs the stage was trained on only where both schedules agree (Section 3.2).
    """
    alpha_bar = from_config(conditioning.z_schedule).alpha_bar.tolist()
    for time in s:
        if time >= len(kept) or abs(kept[time] - alpha_bar[time]) > 1e-9:
            raise MismatchError(
                f"{path}: z/{time} was made by another noise schedule than the stage's z_schedule",
                kept="no output was made",
                next="--augment non-truncated, which needs z_0 only",
            )


def take_truncated(z: Tensor) -> Tensor:
    """Convert z_s as a store holds it, float16 [B, h, w, C], to float32 [B, C, h, w]."""
    return z.permute(0, 3, 1, 2).float().contiguous()


def draw_non_truncated(
    config: StageConfig, z_0: Tensor, s: int, *, ids: Tensor, seed: int
) -> Tensor:
    """Draw z'_s ~ q(z_s | z_0) for each sample (Section 3.3); z_0 itself where s = 0.

    z_0: uint8 [B, C, h, w], generated or real; ids: int64 [B]. q is that of the conditioning's
    z_schedule. eps is keyed by "sr32-64/z_s" (`name_noise`, not the name of x_T), seed and id
    alone: the same for every s, so that a sweep over s is paired.
    """
    assert config.conditioning is not None
    z = from_uint8(z_0)
    if s == 0:
        return z
    eps = Noise(seed, f"{name_noise(config)}/z_s", ids)(z)
    z_schedule = from_config(config.conditioning.z_schedule)
    return gaussian(z_schedule, z, torch.full((len(z),), s, device=z.device), eps)
