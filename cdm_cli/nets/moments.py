"""Sums of x and x squared over the pixels of each channel, in one pass over x.

Group normalisation is a multiply-add once these sums are known, and that multiply-add fuses
with what follows. The sums themselves are a kernel of our own on CUDA: the compiler's
reduction over the groups of a channels-last tensor ran at a fraction of the bandwidth, and
kept float32 copies of every concatenated skip (docs/performance.md).
"""

from typing import Any

import torch
from torch import Tensor

PIXELS_PER_PROGRAM = 1024
HALF = (torch.bfloat16, torch.float16)


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (sum of x, sum of x squared) over H and W, float32 [B, C], for x [B, C, H, W]."""
    if x.is_cuda and x.dtype in HALF:
        sums = _moments(x.permute(0, 2, 3, 1).flatten(1, 2).contiguous())
    else:
        pixels = x.float().flatten(2)
        sums = torch.stack([pixels.sum(2), pixels.square().sum(2)], dim=1)
    return sums[:, 0], sums[:, 1]


def moments_in_torch(x: Tensor) -> Tensor:
    """What the kernel computes, [B, P, C] -> float32 [B, 2, C]."""
    pixels = x.float()
    return torch.stack([pixels.sum(1), pixels.square().sum(1)], dim=1)


def _launch(x: Tensor) -> Tensor:
    """[B, P, C] in half precision -> float32 [B, 2, C]; the order of summation is fixed."""
    from cdm_cli.nets.moments_kernel import launch_grid, moments_kernel

    B, P, C = x.shape
    splits, block_c, grid = launch_grid(B, P, C, PIXELS_PER_PROGRAM)
    parts = torch.empty(splits, B, 2, C, device=x.device, dtype=torch.float32)
    torch.library.wrap_triton(moments_kernel)[grid](
        x, parts, P, C, B, CHUNK=PIXELS_PER_PROGRAM, BLOCK_P=64, BLOCK_C=block_c, num_warps=4
    )
    return parts[0] if splits == 1 else parts.sum(0)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    return (grad[:, :1] + 2 * grad[:, 1:] * x.float()).to(x.dtype)


_moments: Any = torch.library.triton_op("cdm::moments", _launch, mutates_args=())
_moments.register_autograd(_backward, setup_context=_save)
_moments.register_kernel("cpu")(moments_in_torch)
