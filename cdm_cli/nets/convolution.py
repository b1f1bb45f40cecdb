"""Convolutions and changes of resolution, in the form that each device runs best.

Shapes: x is [B, C, H, W], in either memory order.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.nets.normalise import is_fused

Resample = Literal["up", "down"]

FEW_CHANNELS = 12  # for each pixel: with more, cuDNN's kernels for 2x2 are no faster than for 3x3
PART, NARROW = 256, 128  # channels of a part; so many more make cuDNN's gradient of weights slow
LARGE = 128**2  # pixels of an image from which on that was measured


class FirstConv(nn.Conv2d):
    """The convolution that takes images in, on CUDA with channels of zeros up to eight.

    Six channels would keep cuDNN from its fast kernels; three take as long either way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return [B, out_channels, H, W]."""
        if not input.is_cuda:
            return super().forward(input)
        return self._conv_forward(pad_to_eights(input), pad_to_eights(self.weight), self.bias)


def pad_to_eights(x: Tensor) -> Tensor:
    """Add channels of zeros to [B, C, H, W], up to a multiple of eight."""
    return F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % 8))


def change_resolution(x: Tensor, resample: Resample | None) -> Tensor:
    """Double by repetition, halve by the mean of 2 x 2, or leave as it is."""
    match resample:
        case "up":
            return double(x) if x.is_cuda else F.interpolate(x, scale_factor=2.0, mode="nearest")
        case "down":
            return F.avg_pool2d(x, 2)
        case None:
            return x


def double(x: Tensor) -> Tensor:
    """Repeat every pixel twice in both directions; channels-last.

    A compiled `interpolate` adds up gradients one index after another: 11 to 15 % of a
    training step of the ImageNet presets.
    """
    B, C, H, W = x.shape
    rows = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(B, H, 2, W, 2, C)
    return rows.reshape(B, 2 * H, 2 * W, C).permute(0, 3, 1, 2)


class EnlargingConv(nn.Conv2d):
    """The weights of `convolve_doubled`, which convolves a doubled image; never called itself.

    Sampling keeps its weights in float32: sums of them are rounded, and once is enough.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, 3, padding=1)


def convolve_doubled(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the 3x3 convolution of x doubled by repetition, [B, C', 2 H, 2 W].

    Beside it are its sums for the next norm, where a kernel took them on the way, else None.
    """
    _, C, H, W = x.shape
    if not (is_fused(x) and C <= FEW_CHANNELS * H * W):
        return F.conv2d(change_resolution(x, "up"), weight, bias, padding=1), None
    from cdm_cli.nets.kernels.phases import (
        enlarge_by_phases,  # brings the compiler, a second's load
    )

    return enlarge_by_phases(x, weight, weight.new_zeros(len(weight)) if bias is None else bias)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution of x."""
    _, C, H, W = x.shape
    slow = C > PART and C % PART == NARROW and H * W >= LARGE
    if is_fused(x) and weight.requires_grad and slow:
        return _InParts.apply(x, weight.to(x.dtype))  # pyright: ignore[reportReturnType]
    return F.conv2d(x, weight, padding=1)


class _InParts(torch.autograd.Function):
    """Takes the gradient of the weights for some channels of x after the others.

    For 384 channels cuDNN takes 5.1 ms where 256 and 128 take 2.2 with their copies
    (docs/performance-journal.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (dy,) = grad_outputs
        dx, _ = _gradients(dy, x, weight, (True, False))
        parts = (part.contiguous(memory_format=torch.channels_last) for part in x.split(PART, 1))
        along = zip(parts, weight.split(PART, 1), strict=True)
        return dx, torch.cat([_gradients(dy, *part, (False, True))[1] for part in along], dim=1)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> Any:
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*wanted, False)
    )[:2]
