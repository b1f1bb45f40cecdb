"""The Triton kernels behind `phases`; imported on CUDA only. Programs: see `split_kernel`."""
# pyright: basic

import triton
import triton.language as tl

from cdm_cli.nets.kernels.norm_tiles import pixel_rows
from cdm_cli.nets.kernels.split_kernel import channels, keep_sum


@triton.jit
def interleave_kernel(
    v_ptr, bias_ptr, y_ptr, sums_ptr, C, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    SLICE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Store every pixel from its phase, plus bias, and sums of that and of its square."""
    P: tl.constexpr = 4 * HEIGHT * WIDTH
    channel, inside = channels(C, BLOCK_C)
    image = tl.program_id(2).to(tl.int64)
    bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, SLICE, BLOCK_P):
        start = tl.program_id(0) * SLICE + first
        row, mask = pixel_rows(start, image * P, P, inside, BLOCK_P)
        pixel = start + tl.arange(0, BLOCK_P)[:, None]
        i, j = pixel // (2 * WIDTH), pixel % (2 * WIDTH)
        a, d = i % 2, j % 2
        place = (i // 2 + a) * (WIDTH + 1) + j // 2 + d
        of_v = ((image * (HEIGHT + 1) * (WIDTH + 1) + place) * 4 + 2 * a + d) * C
        y = tl.load(v_ptr + of_v + channel[None, :], mask=mask, other=0.0).to(tl.float32)
        y = (y + bias[None, :]).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + row * C + channel[None, :], y, mask=mask)
        y = tl.where(mask, y.to(tl.float32), 0.0)  # as it is stored, without the bias outside
        total += y
        squares += y * y
    keep_sum(sums_ptr, 0, C, channel, inside, total)
    keep_sum(sums_ptr, 1, C, channel, inside, squares)


@triton.jit
def interleave_grad_kernel(
    dy_ptr, dv_ptr, C, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Store the gradients of one phase, zeros where it has no pixel."""
    P: tl.constexpr = (HEIGHT + 1) * (WIDTH + 1)
    blocks = tl.num_programs(1) // 4
    phase = tl.program_id(1) // blocks
    channel = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    image, start = tl.program_id(2).to(tl.int64), tl.program_id(0) * BLOCK_P
    row, mask = pixel_rows(start, image * P, P, channel < C, BLOCK_P)
    place = start + tl.arange(0, BLOCK_P)[:, None]
    a, d = phase // 2, phase % 2
    i, j = place // (WIDTH + 1) - a, place % (WIDTH + 1) - d
    there = mask & (i >= 0) & (i < HEIGHT) & (j >= 0) & (j < WIDTH)
    of_y = (image * (4 * HEIGHT * WIDTH) + (2 * i + a) * (2 * WIDTH) + 2 * j + d) * C
    dy = tl.load(dy_ptr + of_y + channel[None, :], mask=there, other=0.0)
    tl.store(dv_ptr + (row * 4 + phase) * C + channel[None, :], dy, mask=mask)
