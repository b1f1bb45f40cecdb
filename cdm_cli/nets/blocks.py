"""The parts of the U-Net (Ho et al. 2020; Dhariwal & Nichol 2021, Section 3).

Shapes: x is [B, C, H, W], in either memory order.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.nets.attention import attend
from cdm_cli.nets.convolution import (
    EnlargingConv,
    Resample,
    change_resolution,
    convolve,
    convolve_doubled,
)
from cdm_cli.nets.kernels.split_norm import NO_SUMS, Sums
from cdm_cli.nets.normalise import Modulation, group_norm, is_fused


def set_to_zero(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set weights and bias to zero: the block that ends with it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Activation(NamedTuple):
    """What a block returns: x [B, C, H, W], and its sums if the kernel computed them on the way."""

    x: Tensor
    sums: Tensor | None = None


def end_block_fused(parts: list[Tensor], bias: Tensor, factor: float | None) -> Activation:
    """Return the sum that ends a block, (parts + bias) factor, where `is_fused`."""
    from cdm_cli.nets.kernels.fused_sum import add_and_sum  # brings the compiler, a second's load

    return Activation(*add_and_sum(parts, bias, 1.0 if factor is None else factor))


def end_block(x: Tensor, y: Tensor, factor: float | None) -> Activation:
    """Return the sum that ends a block where no kernel fuses it, (x + y) factor."""
    return Activation(x + y if factor is None else (x + y) * factor)


class GroupNorm(nn.Module):
    """Group normalisation with a gain and an offset for each channel.

    The modulation that an embedding makes of both (`nets.modulation`) takes their place.
    """

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.groups = math.gcd(groups, channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        x: Tensor,
        modulation: Modulation | None = None,
        *,
        other: Tensor | None = None,
        sums: Sums = NO_SUMS,
        silu: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:
        """Return the norm of x, [B, C, H, W] in the precision of x, SiLU and dropout of it.

        other holds the last channels where x holds the first ones alone. dropout: the caller says
        0 in evaluation.
        """
        modulation = modulation or Modulation(self.weight, self.bias)
        return group_norm(
            x, self.groups, modulation, other=other, sums=sums, silu=silu, dropout=dropout
        )


class Upsample(nn.Module):
    """Nearest neighbour times two, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = EnlargingConv(channels, channels)

    def forward(self, h: Activation) -> Activation:
        """Return [B, C, 2 H, 2 W]."""
        return Activation(*convolve_doubled(h.x, self.conv.weight, self.conv.bias))


class Downsample(nn.Module):
    """A convolution of stride two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Activation) -> Activation:
        """Return [B, C, H / 2, W / 2]."""
        return Activation(self.conv(h.x))


class ResBlock(nn.Module):
    """Two convolutions around an embedding; the second starts at zero.

    scale_shift: the embedding modulates the second norm (AdaGN) instead of being added before.
    resample: both branches change resolution (BigGAN's block). rescale: the sum of the two
    branches is divided by sqrt(2) (Saharia et al. 2021, after Song et al. 2021).
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        emb_dim: int,
        *,
        groups: int = 32,
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: Resample | None = None,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.resample: Resample | None = resample
        self.scale_shift, self.dropout = scale_shift, dropout
        self.factor = math.sqrt(0.5) if rescale else None
        self.norm_1 = GroupNorm(channels_in, groups)
        self.conv_1 = (
            EnlargingConv(channels_in, channels)
            if resample == "up"
            else nn.Conv2d(channels_in, channels, 3, padding=1)
        )
        self.modulation = nn.Linear(emb_dim, 2 * channels if scale_shift else channels)
        self.norm_2 = GroupNorm(channels, groups)
        self.conv_2 = set_to_zero(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )

    def forward(
        self, h: Activation, modulation: Modulation, skip: Activation | None = None
    ) -> Activation:
        """Return [B, channels, H', W'] for h [B, channels_in, H, W].

        modulation: of `nets.modulation`. skip: the last of the channels_in channels, where h holds
        the first ones alone.
        """
        x, other = h.x, None if skip is None else skip.x
        sums = h.sums, None if skip is None else skip.sums
        if other is not None and not is_fused(x):
            x, other = torch.cat([x, other], dim=1), None
        y, of_y = self._first_conv(self.norm_1(x, other=other, sums=sums, silu=True))
        dropout = self.dropout if self.training else 0.0
        y = self.norm_2(y, modulation, sums=(of_y, None), silu=True, dropout=dropout)
        if not is_fused(x):
            return end_block(
                self.skip(change_resolution(x, self.resample)), self.conv_2(y), self.factor
            )
        y = F.conv2d(y, self.conv_2.weight, None, padding=1)
        shortcuts, bias = self._shortcuts(x, other)
        return end_block_fused([*shortcuts, y], bias, self.factor)

    def _first_conv(self, y: Tensor) -> Activation:
        """Change the resolution and convolve, without the bias, which is of the modulation."""
        if self.resample == "up":
            return Activation(*convolve_doubled(y, self.conv_1.weight, None))
        return Activation(convolve(change_resolution(y, self.resample), self.conv_1.weight))

    def _shortcuts(self, x: Tensor, other: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return what is added to the branch, and all that is constant over the pixels.

        The concatenation of x and other is not written.
        """
        bias = self.conv_2.bias
        assert bias is not None, "every convolution of a block has one"
        if not isinstance(self.skip, nn.Conv2d):
            return [change_resolution(x, self.resample)], bias
        assert self.skip.bias is not None, "every convolution of a block has one"
        parts = [x] if other is None else [x, other]
        weights = self.skip.weight.flatten(1).split([part.shape[1] for part in parts], dim=1)
        made = [
            F.linear(part.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
            for part, weight in zip(parts, weights, strict=True)
        ]
        return [change_resolution(part, self.resample) for part in made], bias + self.skip.bias


class Attention(nn.Module):
    """Self-attention over positions, scaled by 1 / sqrt(head dimension); starts as the identity.

    qkv_order "legacy" splits the projection into heads first and then into q, k, v; "new" the
    other way round: the same function of differently ordered weights.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        groups: int = 32,
        new_order: bool = False,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.new_order = num_heads, new_order
        self.factor = math.sqrt(0.5) if rescale else None
        self.norm = GroupNorm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = set_to_zero(nn.Linear(channels, channels))

    def forward(self, h: Activation) -> Activation:
        """Return [B, C, H, W]; tokens are a view of x in channels-last order."""
        B, C, H, W = h.x.shape
        normed = self.norm(h.x, sums=(h.sums, None))
        q, k, v = self._split(self.qkv(normed.flatten(2).transpose(1, 2)))
        y = attend(q, k, v)
        y = y.transpose(1, 2).reshape(B, H * W, C)
        if not is_fused(h.x):
            return end_block(h.x, self.out(y).transpose(1, 2).reshape(B, C, H, W), self.factor)
        y = F.linear(y, self.out.weight).transpose(1, 2).reshape(B, C, H, W)
        assert self.out.bias is not None
        return end_block_fused([h.x, y], self.out.bias, self.factor)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, 3 C] -> three of [B, heads, L, C / heads]."""
        if self.new_order:
            q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).unbind(2)
        else:
            q, k, v = qkv.unflatten(2, (self.num_heads, 3, -1)).unbind(3)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
