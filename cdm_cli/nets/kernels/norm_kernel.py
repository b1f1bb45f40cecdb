"""The Triton kernels behind `normalise` and its gradient; imported on CUDA only.

A program takes some groups of channels of one image. Where their pixels fit into registers
(RESIDENT), memory is read once; otherwise twice, the second time mostly from the cache. The
order of every sum depends on the shape of an image alone, so no batch size changes a bit.
"""
# pyright: basic

import triton
import triton.language as tl

from cdm_cli.nets.kernels.norm_tiles import (
    at_channels,
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
def _tile_by_group(tile, BLOCK_P: tl.constexpr, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """The same for each pixel: mostly within a thread, so that few numbers cross threads."""
    return tl.sum(tl.reshape(tile, (BLOCK_P, GROUPS, PAD)), 2)


@triton.jit
def _sums(x, added, BLOCK_P: tl.constexpr, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Sum x and x (x + 2 added) over the channels of each group, for each pixel."""
    squares = x * (x + 2 * added[None, :])  # without added squared, which no mask would leave out
    return _tile_by_group(x, BLOCK_P, GROUPS, PAD), _tile_by_group(squares, BLOCK_P, GROUPS, PAD)


@triton.jit
def forward_kernel(
    x_ptr, other_ptr, gain_ptr, offset_ptr, added_ptr, seed_ptr, y_ptr, mean_ptr, rstd_ptr,
    P, C_X, C_OTHER, gain_images, added_images, seeds,
    EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr, BLOCK_P: tl.constexpr,
    RESIDENT: tl.constexpr, JOINED: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
    FAST: tl.constexpr, DROPPED: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """Normalise, multiply by gain, add offset, and apply SiLU and dropout."""
    C = C_X + C_OTHER
    image, channel, inside = share(C, EACH, PAD, GROUPS)
    start = image.to(tl.int64) * P
    seed_ptr, first_row = seed_of_image(seed_ptr, seeds, image, start)
    added = tl.zeros([GROUPS * PAD], tl.float32)
    if ADDED:
        added = coefficient(added_ptr, channel, image, added_images, inside)
    if RESIDENT:
        row, mask = pixel_rows(0, start, P, inside, BLOCK_P)
        x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
        totals, squares = _sums(x, added, BLOCK_P, GROUPS, PAD)
    else:
        totals = tl.zeros([BLOCK_P, GROUPS], tl.float32)
        squares = tl.zeros([BLOCK_P, GROUPS], tl.float32)
        for first in range(0, P, BLOCK_P):
            row, mask = pixel_rows(first, start, P, inside, BLOCK_P)
            x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
            of_totals, of_squares = _sums(x, added, BLOCK_P, GROUPS, PAD)
            totals += of_totals
            squares += of_squares
    mean, rstd = mean_and_rstd(
        tl.sum(totals, 0), tl.sum(squares, 0), added, P, EACH, PAD, GROUPS, EPSILON
    )
    tl.store(mean_ptr + image * C + channel, mean, mask=inside)
    tl.store(rstd_ptr + image * C + channel, rstd, mask=inside)
    gain = coefficient(gain_ptr, channel, image, gain_images, inside)
    offset = coefficient(offset_ptr, channel, image, gain_images, inside)
    factor = rstd * gain
    constant = offset + (added - mean) * factor
    if RESIDENT:
        store_activated(
            y_ptr, seed_ptr, first_row, row, channel, mask, C, x, factor, constant,
            SILU, FAST, DROPPED,
        )  # fmt: skip
    else:
        for first in range(0, P, BLOCK_P):
            row, mask = pixel_rows(first, start, P, inside, BLOCK_P)
            x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
            store_activated(
                y_ptr, seed_ptr, first_row, row, channel, mask, C, x, factor, constant,
                SILU, FAST, DROPPED,
            )  # fmt: skip


@triton.jit
def _load_normaliser(
    gain_ptr, offset_ptr, added_ptr, mean_ptr, rstd_ptr, channel, image, inside, C,
    gain_images, added_images, ADDED: tl.constexpr,
):  # fmt: skip
    """Return gain, offset, rstd and shift: a normalised number is x rstd + shift."""
    gain = coefficient(gain_ptr, channel, image, gain_images, inside)
    offset = coefficient(offset_ptr, channel, image, gain_images, inside)
    rstd = tl.load(rstd_ptr + image * C + channel, mask=inside, other=0.0)
    shift = -tl.load(mean_ptr + image * C + channel, mask=inside, other=0.0)
    if ADDED:
        shift += coefficient(added_ptr, channel, image, added_images, inside)
    return gain, offset, rstd, shift * rstd


@triton.jit
def _way_back(dgain, doffset, gain, rstd, count, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Return factor, slope and constant of `gradient`; count: the numbers of a group."""
    factor = rstd * gain
    slope = at_channels(by_group(dgain * gain, GROUPS, PAD) / count, GROUPS, PAD) * -rstd
    constant = at_channels(by_group(doffset * gain, GROUPS, PAD) / count, GROUPS, PAD) * -rstd
    return factor, slope, constant


@triton.jit
def backward_kernel(
    x_ptr, other_ptr, gain_ptr, offset_ptr, added_ptr, mean_ptr, rstd_ptr, dy_ptr, seed_ptr,
    dx_ptr, dother_ptr, dgain_ptr, doffset_ptr, dadded_ptr,
    P, C_X, C_OTHER, gain_images, added_images, seeds,
    EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr, BLOCK_P: tl.constexpr,
    RESIDENT: tl.constexpr, JOINED: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
    FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """The gradients of `forward_kernel`; those of the coefficients for each image."""
    C = C_X + C_OTHER
    image, channel, inside = share(C, EACH, PAD, GROUPS)
    start = image.to(tl.int64) * P
    seed_ptr, first_row = seed_of_image(seed_ptr, seeds, image, start)
    gain, offset, rstd, shift = _load_normaliser(
        gain_ptr, offset_ptr, added_ptr, mean_ptr, rstd_ptr, channel, image, inside, C,
        gain_images, added_images, ADDED,
    )  # fmt: skip
    total = tl.zeros([GROUPS * PAD], tl.float32)
    if RESIDENT:
        row, mask = pixel_rows(0, start, P, inside, BLOCK_P)
        x, n, dv = gradient_tile(
            x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
            rstd, shift, gain, offset, JOINED, SILU, FAST, DROPPED,
        )  # fmt: skip
        doffset, dgain = tl.sum(dv, 0), tl.sum(dv * n, 0)
        if ADDED:
            total = tl.sum(x, 0)
    else:
        totals = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        doffsets = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        dgains = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        for first in range(0, P, BLOCK_P):
            row, mask = pixel_rows(first, start, P, inside, BLOCK_P)
            x, n, dv = gradient_tile(
                x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
                rstd, shift, gain, offset, JOINED, SILU, FAST, DROPPED,
            )  # fmt: skip
            if ADDED:
                totals += x
            doffsets += dv
            dgains += dv * n
        total, doffset, dgain = tl.sum(totals, 0), tl.sum(doffsets, 0), tl.sum(dgains, 0)
    place = channel * (tl.num_programs(0) // (C // (GROUPS * EACH))) + image  # [C, B]
    tl.store(dgain_ptr + place, dgain, mask=inside)
    tl.store(doffset_ptr + place, doffset, mask=inside)
    factor, slope, constant = _way_back(dgain, doffset, gain, rstd, P * EACH, GROUPS, PAD)
    if ADDED:
        dadded = factor * doffset + slope * (rstd * total + P * shift) + P * constant
        tl.store(dadded_ptr + place, dadded, mask=inside)
    if RESIDENT:
        dx = gradient(n, dv, factor, slope, constant)
        store_tile(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)
    else:
        for first in range(0, P, BLOCK_P):
            row, mask = pixel_rows(first, start, P, inside, BLOCK_P)
            _, n, dv = gradient_tile(
                x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
                rstd, shift, gain, offset, JOINED, SILU, FAST, DROPPED,
            )  # fmt: skip
            dx = gradient(n, dv, factor, slope, constant)
            store_tile(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)
