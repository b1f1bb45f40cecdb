"""The operator of `fused_norm` by many programs an image: sums first, then one pass over all.

For an image that no cache holds, which is read twice in any case, and for one whose sums came with
it, which is read once. Tensors and their shapes are those of `fused_norm`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from cdm_cli.nets.kernels.dropout import threshold
from cdm_cli.nets.kernels.operators import launcher

EPSILON = 1e-5
FAST = True  # False where Triton interprets
SLICE, GRADIENT_SLICE = 4096, 1024  # pixels that a program sums, whatever the batch is
WIDEST = 128  # channels of a program: 256 bytes in a row
TILE, GRADIENT_TILE = 8192, 4096  # numbers that a program holds of each tensor, 32 a thread
STATISTICS_WIDTH = 32  # channels of a program that adds up sums: so many, or one group
FEW_SLICES, MANY_SLICES = 4, 64  # that it adds at a time

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Sums = tuple[Tensor | None, Tensor | None]  # of x and of other, where `nets.fused_sum` took them
NO_SUMS: Sums = (None, None)


def forward(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    sums: Tensor, other_sums: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean, rstd), the statistics float32 [B, C]; sums are taken here if none came."""
    from cdm_cli.nets.kernels.split_kernel import apply_kernel

    if not sums.numel():
        sums, other_sums = _sums(x, other), sums
    assert sums.shape[1] == len(x), "sums of another batch"
    coefficients, mean, rstd = _statistics(
        sums, other_sums, gain, offset, added, x.shape[1], groups
    )
    y = torch.empty(*x.shape[:2], mean.shape[1], device=x.device, dtype=x.dtype)
    tile = _tile(x, other, TILE)
    launcher(apply_kernel)[_grid(x, other, tile["BLOCK_P"], tile)](
        x, other, coefficients, seed, y, *_sizes(x, other), len(seed),
        **tile, **activation(silu, dropout),
    )  # fmt: skip
    return y, mean, rstd


def _statistics(
    sums: Tensor, other_sums: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    P: int, groups: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return factor and constant of every channel, float32 [2, B, C], and mean and rstd [B, C]."""
    from cdm_cli.nets.kernels.split_kernel import statistics_kernel

    _, B, slices, C_x = sums.shape
    C = len(gain)
    each = C // groups
    some, pad = whole_groups(C, groups, STATISTICS_WIDTH)
    block = MANY_SLICES if slices >= MANY_SLICES else min(FEW_SLICES, power_of_two(slices))
    coefficients = torch.empty(2, B, C, device=sums.device, dtype=torch.float32)
    mean, rstd = torch.empty_like(coefficients[0]), torch.empty_like(coefficients[0])
    launcher(statistics_kernel)[(B * (C // (some * each)),)](
        sums, other_sums, gain, offset, added, coefficients, mean, rstd,
        P, C_x, C - C_x, slices, gain.shape[1], added.shape[1],
        EACH=each, PAD=pad, GROUPS=some, BLOCK_S=block, JOINED=C > C_x,
        ADDED=added.shape[1] > 0, EPSILON=EPSILON, num_warps=1,
    )  # fmt: skip
    return coefficients, mean, rstd


def backward(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    mean: Tensor, rstd: Tensor, dy: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> Gradients:  # fmt: skip
    """Return the gradients of x and other, and of gain, offset and added for each image."""
    from cdm_cli.nets.kernels.split_kernel import gradient_kernel, gradient_sums_kernel

    pixels, sizes = x.shape[1], _sizes(x, other)
    gain, offset, added = (c.t() for c in (gain, offset, added))
    shift = ((added.float() if len(added) else 0) - mean) * rstd
    known = [rstd, shift, gain.expand_as(rstd), offset.expand_as(rstd)]
    tile, switches = _tile(x, other, GRADIENT_TILE), activation(silu, dropout)
    sums = _room_for_sums(3, x, other, GRADIENT_SLICE)
    grid = _grid(x, other, GRADIENT_SLICE, tile)
    launcher(gradient_sums_kernel)[grid](
        x, other, dy, seed, torch.stack(known), sums,
        *sizes, len(seed), **tile, **switches, SLICE=GRADIENT_SLICE,
    )  # fmt: skip
    total, doffset, dgain = (part.sum(1) for part in sums)  # views may not be returned
    slope, constant = (-rstd * _group_mean(gain * d, groups) / pixels for d in (dgain, doffset))
    factor = rstd * gain
    dx, dother = torch.empty_like(x), torch.empty_like(other)
    launcher(gradient_kernel)[_grid(x, other, tile["BLOCK_P"], tile)](
        x, other, dy, seed, torch.stack([*known, factor, slope, constant]), dx, dother,
        *sizes, len(seed), **tile, **switches,
    )  # fmt: skip
    dadded = factor * doffset + slope * total + pixels * constant
    dadded = dadded if len(added) else dadded[:0]
    return dx, dother, by_channel(dgain), by_channel(doffset), by_channel(dadded)


def activation(silu: bool, dropout: float) -> dict[str, Any]:
    """Return what the kernels apply after the norm."""
    return {"SILU": silu, "FAST": FAST, "DROPPED": threshold(dropout)}


def by_channel(coefficients: Tensor) -> Tensor:
    """[B, C] -> [C, B], which is the order of the operator's coefficients."""
    return coefficients.t().contiguous()


def _sums(x: Tensor, other: Tensor) -> Tensor:
    """Return the sums of x and of x squared over slices, float32 [2, B, slices, C]."""
    from cdm_cli.nets.kernels.split_kernel import sums_kernel

    tile, sums = _tile(x, other, TILE), _room_for_sums(2, x, other, SLICE)
    launcher(sums_kernel)[_grid(x, other, SLICE, tile)](
        x, other, sums, *_sizes(x, other), **tile, SLICE=SLICE
    )
    return sums


def _room_for_sums(count: int, x: Tensor, other: Tensor, pixels: int) -> Tensor:
    B, P, C_x = x.shape
    shape = (count, B, -(-P // pixels), C_x + other.shape[2])
    return torch.empty(shape, device=x.device, dtype=torch.float32)


def _group_mean(sums: Tensor, groups: int) -> Tensor:
    """Return the mean over the channels of each group, at each of them; [B, C]."""
    each = sums.shape[1] // groups
    return sums.unflatten(1, (groups, each)).mean(2).repeat_interleave(each, dim=1)


def _sizes(x: Tensor, other: Tensor) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2], other.shape[2]


def _tile(x: Tensor, other: Tensor, numbers: int) -> dict[str, Any]:
    """Return tiles of a width that divides the channels, where a power of two does."""
    C = x.shape[2] + other.shape[2]
    width = min(WIDEST, max(16, C & -C))
    return {
        "BLOCK_P": numbers // width, "BLOCK_C": width, "JOINED": other.shape[2] > 0,
        "num_warps": max(1, numbers // 1024),
    }  # fmt: skip


def _grid(x: Tensor, other: Tensor, pixels: int, tile: dict[str, Any]) -> tuple[int, int, int]:
    B, P, C_x = x.shape
    return -(-P // pixels), -(-(C_x + other.shape[2]) // tile["BLOCK_C"]), B


def none_of(x: Tensor) -> Tensor:
    """Return no entries of the last dimension, for an argument that there is none of.

    Detached: the gradient of a slice is as large as x, zeros that are written and then added.
    """
    return x.detach()[..., :0]


def power_of_two(n: int) -> int:
    """Return the least one that is not below n."""
    return 1 << (n - 1).bit_length()


def whole_groups(C: int, groups: int, width: int) -> tuple[int, int]:
    """Return how many groups make a program of that many channels, and the room for each."""
    each = C // groups
    pad = power_of_two(each)
    return (math.gcd(groups, max(1, width // each)) if pad == each else 1), pad


def as_tokens(x: Tensor) -> Tensor:
    """Return x [B, C, H, W] as [B, H W, C], contiguous: no copy in channels-last order."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
