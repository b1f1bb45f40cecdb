"""The parts of the U-Net (Ho et al. 2020; Dhariwal & Nichol 2021, Section 3).

Shapes: x is [B, C, H, W], in either memory order.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.nets.normalise import Modulation, group_norm, is_fused

Resample = Literal["up", "down"]


def zeroed(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set weights and bias to zero: the block that ends with it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


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
        silu: bool = False,
    ) -> Tensor:
        """Return the norm of x, [B, C, H, W] in the precision of x, and SiLU of it.

        other holds the last channels where x holds the first ones alone.
        """
        gain, offset, added = modulation or Modulation(self.weight, self.bias)
        return group_norm(x, self.groups, gain, offset, added=added, other=other, silu=silu)


class Upsample(nn.Module):
    """Nearest neighbour times two, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, 2 H, 2 W]."""
        return self.conv(resampled(x, "up"))


class Downsample(nn.Module):
    """A convolution of stride two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H / 2, W / 2]."""
        return self.conv(x)


def resampled(x: Tensor, resample: Resample | None) -> Tensor:
    """Double by repetition, halve by the mean of 2 x 2, or leave as it is."""
    match resample:
        case "up":
            return doubled(x) if x.is_cuda else F.interpolate(x, scale_factor=2.0, mode="nearest")
        case "down":
            return F.avg_pool2d(x, 2)
        case None:
            return x


def doubled(x: Tensor) -> Tensor:
    """Repeat every pixel twice in both directions; channels-last.

    A compiled `interpolate` adds up gradients one index after another: 11 to 15 % of a
    training step of the ImageNet presets.
    """
    B, C, H, W = x.shape
    rows = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(B, H, 2, W, 2, C)
    return rows.reshape(B, 2 * H, 2 * W, C).permute(0, 3, 1, 2)


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
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.modulation = nn.Linear(emb_dim, 2 * channels if scale_shift else channels)
        self.norm_2 = GroupNorm(channels, groups)
        self.conv_2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )

    def forward(self, x: Tensor, modulation: Modulation, other: Tensor | None = None) -> Tensor:
        """Return [B, channels, H', W'] for x [B, channels_in, H, W].

        modulation: of `nets.modulation`. other: the last of the channels_in channels, where x
        holds the first ones alone.
        """
        if other is not None and not is_fused(x):
            x, other = torch.cat([x, other], dim=1), None
        h = resampled(self.norm_1(x, other=other, silu=True), self.resample)
        h = F.conv2d(h, self.conv_1.weight, None, padding=1)  # its bias is of the modulation
        h = self.norm_2(h, modulation, silu=True)
        h = self.conv_2(F.dropout(h, self.dropout, self.training))
        h = self._shortcut(x, other) + h
        return h if self.factor is None else h * self.factor

    def _shortcut(self, x: Tensor, other: Tensor | None) -> Tensor:
        """Return what the block adds to; the concatenation of x and other is not written."""
        if other is None:
            return self.skip(resampled(x, self.resample))
        assert isinstance(self.skip, nn.Conv2d), "more channels come in than go out"
        of_x, of_other = self.skip.weight.flatten(1).split([x.shape[1], other.shape[1]], dim=1)
        h = F.linear(x.permute(0, 2, 3, 1), of_x, self.skip.bias)
        h = h + F.linear(other.permute(0, 2, 3, 1), of_other)
        return resampled(h.permute(0, 3, 1, 2), self.resample)


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
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]; tokens are a view of x in channels-last order."""
        B, C, H, W = x.shape
        q, k, v = self._split(self.qkv(self.norm(x).flatten(2).transpose(1, 2)))
        h = F.scaled_dot_product_attention(q, k, v)  # softmax in float32
        h = self.out(h.transpose(1, 2).reshape(B, H * W, C))
        h = x + h.transpose(1, 2).reshape(B, C, H, W)
        return h if self.factor is None else h * self.factor

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, 3 C] -> three of [B, heads, L, C / heads]."""
        if self.new_order:
            q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).unbind(2)
        else:
            q, k, v = qkv.unflatten(2, (self.num_heads, 3, -1)).unbind(3)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
