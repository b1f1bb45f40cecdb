"""A convolution of a doubled image, computed on the small one with 4/9 of the products.

Each of the four pixels that one becomes (its phases) sees 3x3 pixels of the doubled image, which
are 2x2 of the small one: weights of the same place are added up first. So the convolution is one
of 2x2 with four times the channels, whose phases are then interleaved. The pass that does so adds
the bias, too, and takes the sums that the next norm needs (`nets.fused_sum`).

For half precision on CUDA. Shapes: v is [B, H + 1, W + 1, 4 C], C channels of every phase (a, d),
which has the pixel (2 i + a, 2 j + d) at (i + a, j + d); y is [B, 4 H W, C].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.nets.kernels.fused_sum import lay_out_sums, sums_of_slices, tile_of
from cdm_cli.nets.kernels.operators import Operator, launcher

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def phase_weights(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weights [4 C', C, 2, 2] of all phases for [C', C, 3, 3], added in float32."""
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    taps = _taps(_taps(exact, 2), 3).unflatten(3, (2, 2)).unflatten(2, (2, 2))
    phases = taps.permute(2, 4, 0, 3, 5, 1).to(dtype)  # [row, column, C', 2, 2, C]
    return phases.reshape(-1, 2, 2, weight.shape[1]).permute(0, 3, 1, 2)


def _taps(weight: Tensor, dim: int) -> Tensor:
    """Return the two weights of the first phase along dim, then those of the second."""
    first, middle, last = weight.split(1, dim)
    return torch.cat([first, middle + last, first + middle, last], dim)


def in_torch(v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the kernel does."""
    B, H, W, C = v.shape[0], v.shape[1] - 1, v.shape[2] - 1, len(bias)
    y = v.new_empty(B, 2 * H, 2 * W, C)
    for (a, d), phase in zip(PHASES, v.split(C, dim=3), strict=True):
        y[:, a::2, d::2] = (phase[:, a : a + H, d : d + W].float() + bias.float()).to(v.dtype)
    y = y.flatten(1, 2)
    return y, sums_of_slices(y)


def launch(v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """`in_torch` by the kernel."""
    from cdm_cli.nets.kernels.phases_kernel import interleave_kernel

    B, H, W, C = v.shape[0], v.shape[1] - 1, v.shape[2] - 1, len(bias)
    y = torch.empty(B, 4 * H * W, C, device=v.device, dtype=v.dtype)
    sums, grid, tile = lay_out_sums(y)
    launcher(interleave_kernel)[grid](v, bias, y, sums, C, HEIGHT=H, WIDTH=W, **tile)
    return y, sums


def launch_backward(dy: Tensor, H: int, W: int) -> Tensor:
    """Return the gradient of v for that of y, by the kernel."""
    from cdm_cli.nets.kernels.phases_kernel import interleave_grad_kernel

    B, _, C = dy.shape
    P = (H + 1) * (W + 1)
    dv = torch.empty(B, H + 1, W + 1, 4 * C, device=dy.device, dtype=dy.dtype)
    tile = tile_of(P, C)
    grid = (-(-P // tile["BLOCK_P"]), 4 * -(-C // tile["BLOCK_C"]), B)
    launcher(interleave_grad_kernel)[grid](dy, dv, C, HEIGHT=H, WIDTH=W, **tile)
    return dv


def gradient_in_torch(dy: Tensor, H: int, W: int) -> Tensor:
    """Return what `launch_backward` does."""
    pixels = dy.unflatten(1, (2 * H, 2 * W))
    placed = [
        F.pad(pixels[:, a::2, d::2], (0, 0, d, 1 - d, a, 1 - a)) for a, d in PHASES
    ]  # where a phase has no pixel, zeros
    return torch.cat(placed, dim=3)


_interleaved = Operator("interleaved", launch, in_torch)
_interleaved_grad = Operator("interleaved_grad", launch_backward, gradient_in_torch)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: object) -> None:
    v, bias = inputs
    ctx.set_materialize_grads(False)  # of sums there are none
    ctx.size, ctx.dtype = (v.shape[1] - 1, v.shape[2] - 1), bias.dtype


def _differentiate(ctx: Any, dy: Tensor, of_sums: None) -> tuple[Tensor, Tensor | None]:
    assert of_sums is None, "nothing is differentiated through the sums"
    dy = dy.contiguous()
    dbias = None
    if ctx.needs_input_grad[1]:
        dbias = dy.sum((0, 1), dtype=torch.float32).to(ctx.dtype)
    return _interleaved_grad(dy, *ctx.size), dbias


_interleaved.differentiate_by(_differentiate, _save)


def enlarge_by_phases(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 3x3 convolution of x [B, C, H, W], doubled, [B, C', 2 H, 2 W], and sums of it."""
    H, W = x.shape[2:]
    v = F.conv2d(x, phase_weights(weight, x.dtype), padding=1)
    y, sums = _interleaved(v.permute(0, 2, 3, 1).contiguous(), bias.contiguous())
    return y.unflatten(1, (2 * H, 2 * W)).permute(0, 3, 1, 2), sums
