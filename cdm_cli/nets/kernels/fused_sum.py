"""The sum that ends a block as one operator, which also sums what the norm after it needs.

For half precision on CUDA: every summand is read once, and the norm then reads the result once
instead of twice. Elsewhere `cdm_cli.nets.blocks` adds in plain terms.

Shapes: a and b are [B, P, C], P pixels; c is the same, or [B, P, 0] where there are two summands;
bias is [C]. The result is y [B, P, C] in the dtype of a, and float32 sums [2, B, slices, C] of y
and y squared, over slices of `slice_pixels` pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.nets.kernels.operators import Operator, launcher
from cdm_cli.nets.kernels.split_norm import as_tokens, none_of, power_of_two

SLICE, MOST_SLICES = 64, 256  # pixels that a program sums, and slices of an image
WIDEST = 128  # channels of a program
TILE = 1024  # numbers that it holds of each summand: those of one warp, so sums cross none


def slice_pixels(P: int) -> int:
    """Return the pixels of a slice, which depend on the image alone."""
    return max(SLICE, power_of_two(-(-P // MOST_SLICES)))


def sums_of_slices(y: Tensor) -> Tensor:
    """Return the sums of y and of y squared over every slice of its pixels."""
    pixels = slice_pixels(y.shape[1])
    slices = F.pad(y.float(), (0, 0, 0, -y.shape[1] % pixels)).unflatten(1, (-1, pixels))
    return torch.stack([slices.sum(2), slices.square().sum(2)])


def tile_of(P: int, C: int) -> dict[str, int]:
    """Return the tile of a kernel that one warp holds, of P pixels and C channels."""
    width = min(WIDEST, max(16, C & -C))
    return {"BLOCK_P": min(TILE // width, power_of_two(P)), "BLOCK_C": width, "num_warps": 1}


def lay_out_sums(y: Tensor) -> tuple[Tensor, tuple[int, int, int], dict[str, int]]:
    """Return room for the sums of y, the grid of a kernel that takes them, and its tile."""
    B, P, C = y.shape
    tile, pixels = tile_of(P, C), slice_pixels(P)
    slices = -(-P // pixels)
    sums = torch.empty(2, B, slices, C, device=y.device, dtype=torch.float32)
    whole = tile["BLOCK_P"] * -(-P // tile["BLOCK_P"])
    grid = (slices, -(-C // tile["BLOCK_C"]), B)
    return sums, grid, tile | {"SLICE": min(pixels, whole)}


def in_torch(a: Tensor, b: Tensor, c: Tensor, bias: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return what the kernel does."""
    total = a.float() + b.float() + (c.float() if c.shape[2] else 0) + bias.float()
    y = (total * factor).to(a.dtype)
    return y, sums_of_slices(y)


def launch(a: Tensor, b: Tensor, c: Tensor, bias: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """`in_torch` by the kernel."""
    from cdm_cli.nets.kernels.split_kernel import addition_kernel

    y = torch.empty_like(a)
    sums, grid, tile = lay_out_sums(y)
    launcher(addition_kernel)[grid](
        a, b, c, bias, y, sums, *y.shape[1:], FACTOR=factor, THREE=c.shape[2] > 0, **tile
    )
    return y, sums


_summed = Operator("summed", launch, in_torch)


def _save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    _, _, c, bias, ctx.factor = inputs
    ctx.set_materialize_grads(False)  # of sums there are none
    ctx.three, ctx.dtype = c.shape[2] > 0, bias.dtype


def _differentiate(ctx: Any, dy: Tensor, of_sums: None) -> tuple[Any, ...]:
    assert of_sums is None, "nothing is differentiated through the sums"
    d = dy if ctx.factor == 1 else dy * ctx.factor
    dbias = d.sum((0, 1), dtype=torch.float32).to(ctx.dtype)
    return d, d, d if ctx.three else None, dbias, None


_summed.differentiate_by(_differentiate, _save)


def add_and_sum(parts: list[Tensor], bias: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return (a + b + c + bias) factor of two or three [B, C, H, W], and sums of it."""
    H, W = parts[0].shape[2:]
    a, b, *c = (as_tokens(part) for part in parts)
    y, sums = _summed(a, b, c[0] if c else none_of(a), bias.contiguous(), factor)
    return y.unflatten(1, (H, W)).permute(0, 3, 1, 2), sums
