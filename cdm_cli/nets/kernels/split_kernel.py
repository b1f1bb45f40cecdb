"""The Triton kernels behind `split_norm` and `fused_sum`; imported on CUDA only.

A program takes a tile of pixels and channels of one image: program_id is (tile of pixels, tile of
channels, image). Coefficients are float32 [K, B, C], K of them for each channel, and sums are
[K, B, slices of the pixels, C].
"""
# pyright: basic

import triton
import triton.language as tl

from cdm_cli.nets.kernels.norm_tiles import (
    by_group,
    coefficient,
    gradient,
    gradient_tile,
    load_tile,
    mean_and_rstd,
    pixel_rows,
    seed_of_image,
    share,
    store_activated,
    store_tile,
)


@triton.jit
def channels(C, BLOCK_C: tl.constexpr):
    """Return the channels of this program, and which of them there are."""
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    return channel, channel < C


@triton.jit
def _kth(ptr, k, C, channel, inside):
    place = (k * tl.num_programs(2) + tl.program_id(2)) * C + channel
    return tl.load(ptr + place, mask=inside, other=0.0)


@triton.jit
def _load_norm(ptr, C, channel, inside):
    """Return rstd, shift, gain and offset, the first coefficients of a way back."""
    rstd = _kth(ptr, 0, C, channel, inside)
    shift = _kth(ptr, 1, C, channel, inside)
    gain = _kth(ptr, 2, C, channel, inside)
    offset = _kth(ptr, 3, C, channel, inside)
    return rstd, shift, gain, offset


@triton.jit
def keep_sum(ptr, k, C, channel, inside, tile):
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
    channel, inside = channels(C_X + C_OTHER, BLOCK_C)
    start = tl.program_id(2).to(tl.int64) * P
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        row, mask = pixel_rows(tl.program_id(0) * SLICE + first, start, P, inside, BLOCK_P)
        x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
        total += x
        squares += x * x
    keep_sum(sums_ptr, 0, C_X + C_OTHER, channel, inside, total)
    keep_sum(sums_ptr, 1, C_X + C_OTHER, channel, inside, squares)


@triton.jit
def statistics_kernel(
    sums_ptr, other_sums_ptr, gain_ptr, offset_ptr, added_ptr, coefficients_ptr, mean_ptr, rstd_ptr,
    P, C_X, C_OTHER, slices, gain_images, added_images,
    EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr, BLOCK_S: tl.constexpr,
    JOINED: tl.constexpr, ADDED: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """Make of sums what normalises some groups of an image; program_id as in `forward_kernel`."""
    C = C_X + C_OTHER
    image, channel, inside = share(C, EACH, PAD, GROUPS)
    images = tl.num_programs(0) // (C // (GROUPS * EACH))
    total = tl.zeros([BLOCK_S, GROUPS * PAD], tl.float32)
    square = tl.zeros([BLOCK_S, GROUPS * PAD], tl.float32)
    for first in range(0, slices, BLOCK_S):
        row, mask = pixel_rows(first, image * slices, slices, inside, BLOCK_S)
        total += load_tile(sums_ptr, other_sums_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
        row += images * slices
        square += load_tile(sums_ptr, other_sums_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
    totals, squares = tl.sum(total, 0), tl.sum(square, 0)
    added = tl.zeros([GROUPS * PAD], tl.float32)
    if ADDED:
        added = coefficient(added_ptr, channel, image, added_images, inside)
    mean, rstd = mean_and_rstd(
        by_group(totals, GROUPS, PAD),
        by_group(squares + 2 * added * totals, GROUPS, PAD),
        added, P, EACH, PAD, GROUPS, EPSILON,
    )  # fmt: skip
    place = image * C + channel
    tl.store(mean_ptr + place, mean, mask=inside)
    tl.store(rstd_ptr + place, rstd, mask=inside)
    gain = coefficient(gain_ptr, channel, image, gain_images, inside)
    offset = coefficient(offset_ptr, channel, image, gain_images, inside)
    factor = rstd * gain
    tl.store(coefficients_ptr + place, factor, mask=inside)
    constant = offset + (added - mean) * factor
    tl.store(coefficients_ptr + images * C + place, constant, mask=inside)


@triton.jit
def apply_kernel(
    x_ptr, other_ptr, coefficients_ptr, seed_ptr, y_ptr, P, C_X, C_OTHER, seeds,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """Multiply by a factor, add a constant, and apply SiLU and dropout."""
    C = C_X + C_OTHER
    channel, inside = channels(C, BLOCK_C)
    factor = _kth(coefficients_ptr, 0, C, channel, inside)
    constant = _kth(coefficients_ptr, 1, C, channel, inside)
    image = tl.program_id(2)
    start = image.to(tl.int64) * P
    seed_ptr, first_row = seed_of_image(seed_ptr, seeds, image, start)
    row, mask = pixel_rows(tl.program_id(0) * BLOCK_P, start, P, inside, BLOCK_P)
    x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
    store_activated(
        y_ptr, seed_ptr, first_row, row, channel, mask, C, x, factor, constant,
        SILU, FAST, DROPPED,
    )  # fmt: skip


@triton.jit
def gradient_sums_kernel(
    x_ptr, other_ptr, dy_ptr, seed_ptr, coefficients_ptr, sums_ptr, P, C_X, C_OTHER, seeds,
    SLICE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """Sum n, dv and dv n over SLICE pixels: the normalised tile and the gradient before SiLU."""
    C = C_X + C_OTHER
    channel, inside = channels(C, BLOCK_C)
    rstd, shift, gain, offset = _load_norm(coefficients_ptr, C, channel, inside)
    image = tl.program_id(2)
    start = image.to(tl.int64) * P
    seed_ptr, first_row = seed_of_image(seed_ptr, seeds, image, start)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    doffset = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    dgain = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        row, mask = pixel_rows(tl.program_id(0) * SLICE + first, start, P, inside, BLOCK_P)
        _, n, dv = gradient_tile(
            x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
            rstd, shift, gain, offset, JOINED, SILU, FAST, DROPPED,
        )  # fmt: skip
        total += tl.where(mask, n, 0.0)
        doffset += dv
        dgain += dv * n
    keep_sum(sums_ptr, 0, C, channel, inside, total)
    keep_sum(sums_ptr, 1, C, channel, inside, doffset)
    keep_sum(sums_ptr, 2, C, channel, inside, dgain)


@triton.jit
def gradient_kernel(
    x_ptr, other_ptr, dy_ptr, seed_ptr, coefficients_ptr, dx_ptr, dother_ptr, P, C_X, C_OTHER,
    seeds,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINED: tl.constexpr,
    SILU: tl.constexpr, FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """Store the gradients of x and other."""
    C = C_X + C_OTHER
    channel, inside = channels(C, BLOCK_C)
    rstd, shift, gain, offset = _load_norm(coefficients_ptr, C, channel, inside)
    factor = _kth(coefficients_ptr, 4, C, channel, inside)
    slope = _kth(coefficients_ptr, 5, C, channel, inside)
    constant = _kth(coefficients_ptr, 6, C, channel, inside)
    image = tl.program_id(2)
    start = image.to(tl.int64) * P
    seed_ptr, first_row = seed_of_image(seed_ptr, seeds, image, start)
    row, mask = pixel_rows(tl.program_id(0) * BLOCK_P, start, P, inside, BLOCK_P)
    _, n, dv = gradient_tile(
        x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
        rstd, shift, gain, offset, JOINED, SILU, FAST, DROPPED,
    )  # fmt: skip
    dx = gradient(n, dv, factor, slope, constant)
    store_tile(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)


@triton.jit
def addition_kernel(
    a_ptr, b_ptr, c_ptr, bias_ptr, y_ptr, sums_ptr, P, C,
    FACTOR: tl.constexpr, THREE: tl.constexpr,
    SLICE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Store (a + b + c + bias) FACTOR, and the sums of that and of its square over SLICE pixels."""
    channel, inside = channels(C, BLOCK_C)
    start = tl.program_id(2).to(tl.int64) * P
    bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        row, mask = pixel_rows(tl.program_id(0) * SLICE + first, start, P, inside, BLOCK_P)
        place = row * C + channel[None, :]
        y = tl.load(a_ptr + place, mask=mask, other=0.0).to(tl.float32)
        y += tl.load(b_ptr + place, mask=mask, other=0.0)
        if THREE:
            y += tl.load(c_ptr + place, mask=mask, other=0.0)
        y = ((y + bias[None, :]) * FACTOR).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + place, y, mask=mask)
        y = tl.where(mask, y.to(tl.float32), 0.0)  # as it is stored, without the bias outside
        total += y
        squares += y * y
    keep_sum(sums_ptr, 0, C, channel, inside, total)
    keep_sum(sums_ptr, 1, C, channel, inside, squares)
