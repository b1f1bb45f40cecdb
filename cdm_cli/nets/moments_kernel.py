"""The Triton kernel behind `moments`; imported on CUDA only."""
# pyright: basic

import triton
import triton.language as tl


@triton.jit
def moments_kernel(
    x_ptr, parts_ptr, P, C, B, CHUNK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Sum x and x squared over CHUNK pixels of BLOCK_C channels of one image."""
    image, split = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < C
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    start = x_ptr + image.to(tl.int64) * P * C
    for first in range(split * CHUNK, split * CHUNK + CHUNK, BLOCK_P):
        pixel = first + tl.arange(0, BLOCK_P)
        mask = (pixel[:, None] < P) & inside[None, :]
        x = tl.load(start + pixel[:, None] * C + channel[None, :], mask=mask, other=0.0)
        x = x.to(tl.float32)
        total += x
        squares += x * x
    row = parts_ptr + (split * B + image).to(tl.int64) * 2 * C + channel
    tl.store(row, tl.sum(total, 0), mask=inside)
    tl.store(row + C, tl.sum(squares, 0), mask=inside)


def launch_grid(B: int, P: int, C: int, chunk: int) -> tuple[int, int, tuple[int, int, int]]:
    """Return (number of splits of the pixels, channels per program, grid).

    The splits depend on the size of the image alone, so that no batch size changes a sum.
    """
    splits, block_c = triton.cdiv(P, chunk), 64
    return splits, block_c, (B, triton.cdiv(C, block_c), splits)
