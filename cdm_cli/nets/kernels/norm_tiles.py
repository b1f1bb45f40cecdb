"""What the Triton kernels of norms share: a tile of pixels x channels, and the arithmetic of one.

At the speed of memory there is time for about 15 instructions a number: coefficients are folded
for each channel, masked numbers are zeros that need no selection, and FAST takes the sigmoid
from two instructions of the hardware (relative error 2^-21), which Triton's interpreter lacks.
"""
# pyright: basic

import triton
import triton.language as tl


@triton.jit
def share(C, EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr):
    """Return the image and the channels of this program, and which of these there are."""
    blocks = C // (GROUPS * EACH)
    place = tl.arange(0, GROUPS * PAD)
    channel = tl.program_id(0) % blocks * (GROUPS * EACH) + place
    return tl.program_id(0) // blocks, channel, place < GROUPS * EACH


@triton.jit
def coefficient(ptr, channel, image, images, inside):
    """Load a number for each channel: of this image, or of all where there is one for all."""
    place = channel * images + tl.where(images > 1, image, 0)
    return tl.load(ptr + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def by_group(c, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Sum a number for each channel over the channels of each group."""
    return tl.sum(tl.reshape(c, (GROUPS, PAD)), 1)


@triton.jit
def at_channels(c, GROUPS: tl.constexpr, PAD: tl.constexpr):
    """Put what a group has at each of its channels."""
    return tl.reshape(tl.broadcast_to(tl.expand_dims(c, 1), (GROUPS, PAD)), (GROUPS * PAD,))


@triton.jit
def mean_and_rstd(
    total, square, added, P, EACH: tl.constexpr, PAD: tl.constexpr, GROUPS: tl.constexpr,
    EPSILON: tl.constexpr,
):  # fmt: skip
    """Return both at each channel, from the sums of x and x (x + 2 added) over an image."""
    total += P * by_group(added, GROUPS, PAD)
    square += P * by_group(added * added, GROUPS, PAD)
    mean = total / (P * EACH)
    variance = square / (P * EACH) - mean * mean
    rstd = tl.rsqrt(tl.maximum(variance, 0.0) + EPSILON)
    return at_channels(mean, GROUPS, PAD), at_channels(rstd, GROUPS, PAD)


@triton.jit
def pixel_rows(first, start, P, inside, BLOCK_P: tl.constexpr):
    """Return the rows of BLOCK_P pixels from the first on, and what of their tile there is."""
    pixel = first + tl.arange(0, BLOCK_P)[:, None]
    return start + pixel, (pixel < P) & inside[None, :]


@triton.jit
def load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED: tl.constexpr):
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
def store_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, value, JOINED: tl.constexpr):
    """Store what `load_tile` loads."""
    value = value.to(x_ptr.dtype.element_ty)
    if JOINED:
        of_x = mask & (channel < C_X)[None, :]
        of_other = mask & (channel >= C_X)[None, :]
        tl.store(x_ptr + row * C_X + channel[None, :], value, mask=of_x)
        tl.store(other_ptr + row * C_OTHER + (channel - C_X)[None, :], value, mask=of_other)
    else:
        tl.store(x_ptr + row * C_X + channel[None, :], value, mask=mask)


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
def seed_of_image(seed_ptr, seeds, image, start):
    """Return where the seed of an image is, and the row that its places count from.

    One seed for all images: places count through all of them.
    """
    own = seeds > 1
    return seed_ptr + tl.where(own, image, 0), tl.where(own, start, 0)


@triton.jit
def dropout_mask(place, seed_ptr, DROPPED: tl.constexpr):
    """`nets.dropout.dropout_mask` at places; hashes below DROPPED, of 2^32, are dropped."""
    bits = place.to(tl.uint32)
    bits = ((bits ^ (bits >> 17)) * 0xED5AD4BB) ^ tl.load(seed_ptr).to(tl.uint32)
    bits = (bits ^ (bits >> 11)) * 0xAC4C1B51
    bits = (bits ^ (bits >> 15)) * 0x31848BAB
    return tl.where(bits >= DROPPED, 1.0 / (1.0 - DROPPED / 4294967296.0), 0.0)


@triton.jit
def store_activated(
    y_ptr, seed_ptr, first_row, row, channel, mask, C, x, factor, constant,
    SILU: tl.constexpr, FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """Multiply by factor, add constant, apply SiLU and dropout, and store."""
    v = x * factor[None, :] + constant[None, :]
    y = v * _sigmoid(v, FAST) if SILU else v
    if DROPPED:
        y *= dropout_mask((row - first_row) * C + channel[None, :], seed_ptr, DROPPED)
    tl.store(y_ptr + row * C + channel[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gradient_tile(
    x_ptr, other_ptr, dy_ptr, seed_ptr, first_row, row, channel, mask, C_X, C_OTHER,
    rstd, shift, gain, offset,
    JOINED: tl.constexpr, SILU: tl.constexpr, FAST: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    """Return a tile of x, the same normalised, and the gradient before the activation."""
    x = load_tile(x_ptr, other_ptr, row, channel, mask, C_X, C_OTHER, JOINED)
    n = x * rstd[None, :] + shift[None, :]
    C = C_X + C_OTHER
    dv = tl.load(dy_ptr + row * C + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    if DROPPED:
        dv *= dropout_mask((row - first_row) * C + channel[None, :], seed_ptr, DROPPED)
    if SILU:
        v = n * gain[None, :] + offset[None, :]
        sigmoid = _sigmoid(v, FAST)
        y = v * sigmoid
        dv = dv * (sigmoid + y - y * sigmoid)
    return x, n, dv


@triton.jit
def gradient(n, dv, factor, slope, constant):
    """Return the gradient of a tile of x."""
    return dv * factor[None, :] + (n * slope[None, :] + constant[None, :])
