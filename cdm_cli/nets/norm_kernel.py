"""The Triton kernels behind `normalised` and its gradient; imported on CUDA only.

A program takes some groups of channels of one image. Where their pixels fit into registers
(RESIDENT), memory is read once; otherwise twice, the second time mostly from the cache. The
order of every sum depends on the shape of an image alone, so no batch size changes a bit.

At the speed of memory there is time for about 15 instructions a number: coefficients are folded
for each channel, masked numbers are zeros that need no selection, and FAST takes the sigmoid
from two instructions of the hardware (relative error 2^-21), which Triton's interpreter lacks.
"""
# pyright: basic

import triton
import triton.language as tl


@triton.jit
def _share(C, EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr):
    """Return the image and the channels of this program, and which of these there are."""
    blocks = C // (GROUPS * EACH)
    place = tl.arange(0, GROUPS * PAD)
    channel = tl.program_id(0) % blocks * (GROUPS * EACH) + place
    return tl.program_id(0) // blocks, channel, place < GROUPS * EACH


@triton.jit
def _rows(first, start, P, inside, BLOCK_P: tl.constexpr):
    """Return the rows of BLOCK_P pixels from the first on, and what of their tile there is."""
    pixel = first + tl.arange(0, BLOCK_P)[:, None]
    return start + pixel, (pixel < P) & inside[None, :]


@triton.jit
def _coefficient(ptr, channel, image, images, inside):
    """Load a number for each channel: of this image, or of all where there is one for all."""
    place = channel * images + tl.where(images > 1, image, 0)
    return tl.load(ptr + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED: tl.constexpr):
    """Load pixels x channels of the concatenation of x and other, as float32; zero outside."""
    if JOINED:
        of_x = mask & (channel < C_X)[None, :]
        of_other = mask & (channel >= C_X)[None, :]
        x = tl.load(x_ptr + row * C_X + channel[None, :], mask=of_x, other=0.0)
        place = other_ptr + row * C_OTHER + (channel - C_X)[None, :]
        x += tl.load(place, mask=of_other, other=0.0)
    else:
        x = tl.load(x_ptr + row * C_X + channel[None, :], mask=mask, other=0.0)
    return x.to(tl.float32)


@triton.jit
def _store(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, value, JOINED: tl.constexpr):
    """Store what `_tile` loads."""
    value = value.to(x_ptr.dtype.element_ty)
    if JOINED:
        of_x = mask & (channel < C_X)[None, :]
        of_other = mask & (channel >= C_X)[None, :]
        tl.store(x_ptr + row * C_X + channel[None, :], value, mask=of_x)
        tl.store(other_ptr + row * C_OTHER + (channel - C_X)[None, :], value, mask=of_other)
    else:
        tl.store(x_ptr + row * C_X + channel[None, :], value, mask=mask)


@triton.jit
def _by_group(c, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Sum a number for each channel over the channels of each group."""
    return tl.sum(tl.reshape(c, (GROUPS, PAD)), 1)


@triton.jit
def _tile_by_group(tile, BLOCK_P: tl.constexpr, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """The same for each pixel: mostly within a thread, so that few numbers cross threads."""
    return tl.sum(tl.reshape(tile, (BLOCK_P, GROUPS, PAD)), 2)


@triton.jit
def _at_channels(c, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Put what a group has at each of its channels."""
    return tl.reshape(tl.broadcast_to(tl.expand_dims(c, 1), (GROUPS, PAD)), (GROUPS * PAD,))


@triton.jit
def _sigmoid(v, FAST: tl.constexpr):
    if FAST:
        power = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [v * -1.4426950408889634],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [power + 1.0],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    return 1.0 / (1.0 + tl.exp(-v))


@triton.jit
def _activated(x, factor, constant, SILU: tl.constexpr, FAST: tl.constexpr):
    v = x * factor[None, :] + constant[None, :]
    return v * _sigmoid(v, FAST) if SILU else v


@triton.jit
def _gradient_tile(
    x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain, offset,
    JOINED: tl.constexpr, SILU: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Return a tile of x, the same normalised, and the gradient before the activation."""
    x = _tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
    n = x * rstd[None, :] + shift[None, :]
    dv = tl.load(dy_ptr + row * (C_X + C_OTHER) + channel[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    if SILU:
        v = n * gain[None, :] + offset[None, :]
        sigmoid = _sigmoid(v, FAST)
        y = v * sigmoid
        dv = dv * (sigmoid + y - y * sigmoid)
    return x, n, dv


@triton.jit
def _sums(x, added, BLOCK_P: tl.constexpr, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Sum x and x (x + 2 added) over the channels of each group, for each pixel."""
    squares = x * (x + 2 * added[None, :])  # without added squared, which no mask would leave out
    return _tile_by_group(x, BLOCK_P, GROUPS, PAD), _tile_by_group(squares, BLOCK_P, GROUPS, PAD)


@triton.jit
def forward_kernel(
    x_ptr, other_ptr, gain_ptr, offset_ptr, added_ptr, y_ptr, mean_ptr, rstd_ptr,
    P, C_X, C_OTHER, gain_images, added_images,
    EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr, BLOCK_P: tl.constexpr,
    RESIDENT: tl.constexpr, JOINED: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
    FAST: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """Normalise, multiply by gain, add offset, and apply SiLU."""
    C = C_X + C_OTHER
    image, channel, inside = _share(C, EACH, PAD, GROUPS)
    start = image.to(tl.int64) * P
    added = tl.zeros([GROUPS * PAD], tl.float32)
    if ADDED:
        added = _coefficient(added_ptr, channel, image, added_images, inside)
    if RESIDENT:
        row, mask = _rows(0, start, P, inside, BLOCK_P)
        x = _tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
        totals, squares = _sums(x, added, BLOCK_P, GROUPS, PAD)
    else:
        totals = tl.zeros([BLOCK_P, GROUPS], tl.float32)
        squares = tl.zeros([BLOCK_P, GROUPS], tl.float32)
        for first in range(0, P, BLOCK_P):
            row, mask = _rows(first, start, P, inside, BLOCK_P)
            x = _tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
            of_totals, of_squares = _sums(x, added, BLOCK_P, GROUPS, PAD)
            totals += of_totals
            squares += of_squares
    total = tl.sum(totals, 0) + P * _by_group(added, GROUPS, PAD)
    square = tl.sum(squares, 0) + P * _by_group(added * added, GROUPS, PAD)
    mean = total / (P * EACH)
    variance = square / (P * EACH) - mean * mean
    rstd = _at_channels(tl.rsqrt(tl.maximum(variance, 0.0) + EPSILON), GROUPS, PAD)
    mean = _at_channels(mean, GROUPS, PAD)
    tl.store(mean_ptr + image * C + channel, mean, mask=inside)
    tl.store(rstd_ptr + image * C + channel, rstd, mask=inside)
    gain = _coefficient(gain_ptr, channel, image, gain_images, inside)
    offset = _coefficient(offset_ptr, channel, image, gain_images, inside)
    factor = rstd * gain
    constant = offset + (added - mean) * factor
    if RESIDENT:
        y = _activated(x, factor, constant, SILU, FAST).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + row * C + channel[None, :], y, mask=mask)
    else:
        for first in range(0, P, BLOCK_P):
            row, mask = _rows(first, start, P, inside, BLOCK_P)
            x = _tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
            y = _activated(x, factor, constant, SILU, FAST).to(y_ptr.dtype.element_ty)
            tl.store(y_ptr + row * C + channel[None, :], y, mask=mask)


@triton.jit
def backward_kernel(
    x_ptr, other_ptr, gain_ptr, offset_ptr, added_ptr, mean_ptr, rstd_ptr, dy_ptr,
    dx_ptr, dother_ptr, dgain_ptr, doffset_ptr, dadded_ptr,
    P, C_X, C_OTHER, gain_images, added_images,
    EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr, BLOCK_P: tl.constexpr,
    RESIDENT: tl.constexpr, JOINED: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
    FAST: tl.constexpr,
):  # fmt: skip
    """The gradients of `forward_kernel`; those of the coefficients for each image."""
    C = C_X + C_OTHER
    image, channel, inside = _share(C, EACH, PAD, GROUPS)
    start = image.to(tl.int64) * P
    gain = _coefficient(gain_ptr, channel, image, gain_images, inside)
    offset = _coefficient(offset_ptr, channel, image, gain_images, inside)
    rstd = tl.load(rstd_ptr + image * C + channel, mask=inside, other=0.0)
    shift = -tl.load(mean_ptr + image * C + channel, mask=inside, other=0.0)
    if ADDED:
        shift += _coefficient(added_ptr, channel, image, added_images, inside)
    shift *= rstd
    total = tl.zeros([GROUPS * PAD], tl.float32)
    if RESIDENT:
        row, mask = _rows(0, start, P, inside, BLOCK_P)
        x, n, dv = _gradient_tile(
            x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain, offset,
            JOINED, SILU, FAST,
        )  # fmt: skip
        doffset, dgain = tl.sum(dv, 0), tl.sum(dv * n, 0)
        if ADDED:
            total = tl.sum(x, 0)
    else:
        totals = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        doffsets = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        dgains = tl.zeros([BLOCK_P, GROUPS * PAD], tl.float32)
        for first in range(0, P, BLOCK_P):
            row, mask = _rows(first, start, P, inside, BLOCK_P)
            x, n, dv = _gradient_tile(
                x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain,
                offset, JOINED, SILU, FAST,
            )  # fmt: skip
            if ADDED:
                totals += x
            doffsets += dv
            dgains += dv * n
        total, doffset, dgain = tl.sum(totals, 0), tl.sum(doffsets, 0), tl.sum(dgains, 0)
    place = channel * (tl.num_programs(0) // (C // (GROUPS * EACH))) + image  # [C, B]
    tl.store(dgain_ptr + place, dgain, mask=inside)
    tl.store(doffset_ptr + place, doffset, mask=inside)
    factor = rstd * gain  # dx = dv * factor + n * slope + constant
    slope = _at_channels(_by_group(dgain * gain, GROUPS, PAD) / (P * EACH), GROUPS, PAD) * -rstd
    constant = _at_channels(_by_group(doffset * gain, GROUPS, PAD) / (P * EACH), GROUPS, PAD)
    constant *= -rstd
    if ADDED:
        dadded = factor * doffset + slope * (rstd * total + P * shift) + P * constant
        tl.store(dadded_ptr + place, dadded, mask=inside)
    if RESIDENT:
        dx = dv * factor[None, :] + (n * slope[None, :] + constant[None, :])
        _store(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)
    else:
        for first in range(0, P, BLOCK_P):
            row, mask = _rows(first, start, P, inside, BLOCK_P)
            _, n, dv = _gradient_tile(
                x_ptr, other_ptr, dy_ptr, row, channel, mask, C_X, C_OTHER, rstd, shift, gain,
                offset, JOINED, SILU, FAST,
            )  # fmt: skip
            dx = dv * factor[None, :] + (n * slope[None, :] + constant[None, :])
            _store(dx_ptr, dother_ptr, row, channel, mask, C_X, C_OTHER, dx, JOINED)
