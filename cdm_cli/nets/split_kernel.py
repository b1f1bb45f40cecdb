"""The Triton kernels behind `split_norm`; imported on CUDA only.

A program takes a tile of pixels and channels of one image: program_id is (tile of pixels, tile of
channels, image). Coefficients and sums are float32 [K, B, C], K of them for each channel.
"""
# pyright: basic

import triton
import triton.language as tl

from cdm_cli.nets.norm_tiles import (
    activated,
    gradient,
    gradient_tile,
    load_tile,
    pixel_rows,
    store_tile,
)


@triton.jit
def _channels(C, BLOCK_C: tl.constexpr):
    """Return the channels of this program, and which of them there are."""
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    return channel, channel < C


@triton.jit
def _coefficient(ptr, k, C, channel, inside):
    place = (k * tl.num_programs(2) + tl.program_id(2)) * C + channel
    return tl.load(ptr + place, mask=inside, other=0.0)


@triton.jit
def _known(ptr, C, channel, inside):
    """Return rstd, shift, gain and offset, the first coefficients of a way back."""
    rstd = _coefficient(ptr, 0, C, channel, inside)
    shift = _coefficient(ptr, 1, C, channel, inside)
    gain = _coefficient(ptr, 2, C, channel, inside)
    offset = _coefficient(ptr, 3, C, channel, inside)
    return rstd, shift, gain, offset


@triton.jit
def _keep_sum(ptr, k, C, channel, inside, tile):
    """Store the sum over the pixels of a tile at [k, image, tile of pixels, channel]."""
    image = k * tl.num_programs(2) + tl.program_id(2)
    place = (image * tl.num_programs(0) + tl.program_id(0)) * C + channel
    tl.store(ptr + place, tl.sum(tile, 0), mask=inside)


@triton.jit
def sums_kernel(
    x_ptr, other_ptr, sums_ptr, P, C_X, C_OTHER,
    SLICE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
):  # fmt: skip
    """Sum x and x squared over SLICE pixels."""
    channel, inside = _channels(C_X + C_OTHER, BLOCK_C)
    start = tl.program_id(2).to(tl.int64) * P
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        row, mask = pixel_rows(tl.program_id(0) * SLICE + first, start, P, inside, BLOCK_P)
        x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
        total += x
        squares += x * x
    _keep_sum(sums_ptr, 0, C_X + C_OTHER, channel, inside, total)
    _keep_sum(sums_ptr, 1, C_X + C_OTHER, channel, inside, squares)


@triton.jit
def apply_kernel(
    x_ptr, other_ptr, coefficients_ptr, y_ptr, P, C_X, C_OTHER,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Multiply by a factor, add a constant, and apply SiLU."""
    C = C_X + C_OTHER
    channel, inside = _channels(C, BLOCK_C)
    factor = _coefficient(coefficients_ptr, 0, C, channel, inside)
    constant = _coefficient(coefficients_ptr, 1, C, channel, inside)
    start = tl.program_id(2).to(tl.int64) * P
    row, mask = pixel_rows(tl.program_id(0) * BLOCK_P, start, P, inside, BLOCK_P)
    x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
    y = activated(x, factor, constant, SILU, FAST).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row * C + channel[None, :], y, mask=mask)


@triton.jit
def gradient_sums_kernel(
    x_ptr, other_ptr, dy_ptr, coefficients_ptr, sums_ptr, P, C_X, C_OTHER,
    SLICE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Sum n, dv and dv n over SLICE pixels: the normalised tile and the gradient before SiLU."""
    C = C_X + C_OTHER
    channel, inside = _channels(C, BLOCK_C)
    rstd, shift, gain, offset = _known(coefficients_ptr, C, channel, inside)
    start = tl.program_id(2).to(tl.int64) * P
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    doffset = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    dgain = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        row, mask = pixel_rows(tl.program_id(0) * SLICE + first, start, P, inside, BLOCK_P)
        _, n, dv = gradient_tile(
            x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain, offset,
            JOINED, SILU, FAST,
        )  # fmt: skip
        total += tl.where(mask, n, 0.0)
        doffset += dv
        dgain += dv * n
    _keep_sum(sums_ptr, 0, C, channel, inside, total)
    _keep_sum(sums_ptr, 1, C, channel, inside, doffset)
    _keep_sum(sums_ptr, 2, C, channel, inside, dgain)


@triton.jit
def gradient_kernel(
    x_ptr, other_ptr, dy_ptr, coefficients_ptr, dx_ptr, dother_ptr, P, C_X, C_OTHER,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Store the gradients of x and other."""
    C = C_X + C_OTHER
    channel, inside = _channels(C, BLOCK_C)
    rstd, shift, gain, offset = _known(coefficients_ptr, C, channel, inside)
    factor = _coefficient(coefficients_ptr, 4, C, channel, inside)
    slope = _coefficient(coefficients_ptr, 5, C, channel, inside)
    constant = _coefficient(coefficients_ptr, 6, C, channel, inside)
    start = tl.program_id(2).to(tl.int64) * P
    row, mask = pixel_rows(tl.program_id(0) * BLOCK_P, start, P, inside, BLOCK_P)
    _, n, dv = gradient_tile(
        x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain, offset,
        JOINED, SILU, FAST,
    )  # fmt: skip
    dx = gradient(n, dv, factor, slope, constant)
    store_tile(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)
