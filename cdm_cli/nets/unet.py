"""The U-Net of every stage (paper, Section 2.3; the layout of Dhariwal & Nichol 2021).

Shapes: x_t is [B, C, H, W]; z_s is [B, C, h, w], upsampled here (bilinear,
align_corners=False) and concatenated; t and s are float [B] in the scale that is embedded,
since the network knows no schedule; y is int64 [B].
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cdm_cli.config import ModelConfig
from cdm_cli.nets.blocks import (
    Activation,
    Attention,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
    set_to_zero,
)
from cdm_cli.nets.convolution import FirstConv
from cdm_cli.nets.embeddings import NumberEmbedding
from cdm_cli.nets.layout import CellPlan, count_heads, find_middle_channels, plan_down, plan_up
from cdm_cli.nets.modulation import compute_modulations
from cdm_cli.nets.normalise import Modulation


class Condition(NamedTuple):
    """The inputs of the network that are the same in all reverse steps of a sample."""

    emb: Tensor | None  # [B, E]: class and s
    z_up: Tensor | None  # [B, C, H, W]: z_s at the stage's resolution


Modulated = dict[ResBlock, Modulation]


class Cell(nn.Module):
    """A residual block, attention and a change of resolution, each where the plan has it."""

    def __init__(self, config: ModelConfig, plan: CellPlan) -> None:
        super().__init__()
        self.block = self.attention = self.resize = None
        if plan.has_block:
            self.block = build_block(config, plan.channels_in, plan.channels)
        if plan.has_attention:
            self.attention = build_attention(config, plan.channels)
        if plan.resize and config.resblock_updown:
            self.resize = build_block(config, plan.channels, plan.channels, plan)
        elif plan.resize:
            self.resize = (Upsample if plan.resize == "up" else Downsample)(plan.channels)

    def forward(
        self, h: Activation, modulated: Modulated, skip: Activation | None = None
    ) -> Activation:
        """Return [B, C', H', W']; skip is what the way down left for a cell of the way up."""
        if self.block is not None:
            h = self.block(h, modulated[self.block], skip)
        if self.attention is not None:
            h = self.attention(h)
        if isinstance(self.resize, ResBlock):
            return self.resize(h, modulated[self.resize])
        return h if self.resize is None else self.resize(h)


def build_block(
    config: ModelConfig, channels_in: int, channels: int, plan: CellPlan | None = None
) -> ResBlock:
    """Build a residual block; with a plan, the one that changes the resolution."""
    return ResBlock(
        channels_in,
        channels,
        4 * config.base_channels,
        groups=config.norm_groups,
        dropout=config.dropout,
        scale_shift=config.scale_shift,
        resample=plan.resize if plan else None,
        rescale=config.skip_rescale,
    )


def build_attention(config: ModelConfig, channels: int) -> Attention:
    """Build self-attention with heads as a count, or of a given width."""
    return Attention(
        channels,
        count_heads(config, channels),
        groups=config.norm_groups,
        new_order=config.qkv_order == "new",
        rescale=config.skip_rescale,
    )


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = build_block(config, channels, channels)
        self.attention = build_attention(config, channels)
        self.block_2 = build_block(config, channels, channels)

    def forward(self, h: Activation, modulated: Modulated) -> Activation:
        """Return [B, C, H, W]."""
        h = self.attention(self.block_1(h, modulated[self.block_1]))
        return self.block_2(h, modulated[self.block_2])


class UNet(nn.Module):
    """eps_theta(x_t, t, z_s, s, y), and v where out_channels = 2 C.

    conditioned: z_s is concatenated with x_t. embeds_s: s has an embedding of its own, added to
    that of t (Section 3.2). gradient_checkpointing: recompute each cell in the backward pass.
    """

    def __init__(
        self, config: ModelConfig, *, out_channels: int, conditioned: bool, embeds_s: bool
    ) -> None:
        super().__init__()
        self.config, self.conditioned = config, conditioned
        self.gradient_checkpointing = False
        base, emb_dim = config.base_channels, 4 * config.base_channels
        down, up = plan_down(config), plan_up(config)
        self.embed_t = NumberEmbedding(base, emb_dim)
        self.embed_s = NumberEmbedding(base, emb_dim) if embeds_s else None
        self.embed_y = nn.Embedding(config.num_classes, emb_dim) if config.num_classes else None
        channels_in = config.channels * (2 if conditioned else 1)
        self.conv_in = FirstConv(channels_in, down[0].channels_in, 3, padding=1)
        self.down = nn.ModuleList(Cell(config, plan) for plan in down)
        self.middle = Middle(config, find_middle_channels(config))
        self.up = nn.ModuleList(Cell(config, plan) for plan in up)
        self.norm_out = GroupNorm(up[-1].channels, config.norm_groups)
        self.conv_out = set_to_zero(nn.Conv2d(up[-1].channels, out_channels, 3, padding=1))
        self._blocks = [module for module in self.modules() if isinstance(module, ResBlock)]

    @property
    def num_blocks(self) -> int:
        """How many residual blocks there are, each with a dropout of its own."""
        return len(self._blocks)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the trunk's weights."""
        return self.conv_in.weight.dtype

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        z_s: Tensor | None = None,
        s: Tensor | None = None,
        y: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """Return the raw output [B, out_channels, H, W], in the precision of the last layer.

        seeds: of dropout in training, int64 [B, num_blocks] in 0..2^32 - 1; None: torch's default
        generator drops.
        The trunk runs in the precision of its weights, or under autocast in that of autocast;
        norms, softmax and sinusoids compute in float32 in either case.
        """
        return self.denoise(x_t, t, self.prepare(z_s, s, y), seeds)

    def prepare(
        self, z_s: Tensor | None = None, s: Tensor | None = None, y: Tensor | None = None
    ) -> Condition:
        """Compute what all reverse steps share: the embedding of s and y, and z_s enlarged."""
        assert (z_s is not None) == self.conditioned, "z_s belongs to a conditioned U-Net"
        assert (s is not None) == (self.embed_s is not None), "s does not fit this U-Net"
        assert (y is not None) == (self.embed_y is not None), "y does not fit this U-Net"
        emb = None
        if self.embed_y is not None and y is not None:
            emb = self.embed_y(y)
        if self.embed_s is not None and s is not None:
            emb_s = self.embed_s(s)
            emb = emb_s if emb is None else emb + emb_s
        if z_s is None:
            return Condition(emb, None)
        size = (self.config.resolution, self.config.resolution)
        return Condition(emb, F.interpolate(z_s, size, mode="bilinear", align_corners=False))

    def denoise(
        self, x_t: Tensor, t: Tensor, condition: Condition, seeds: Tensor | None = None
    ) -> Tensor:
        """Run one reverse step on what `prepare` returned; [B, out_channels, H, W]."""
        emb = self.embed_t(t)
        emb = F.silu(emb if condition.emb is None else emb + condition.emb)
        modulated = dict(
            zip(self._blocks, compute_modulations(self._blocks, emb, seeds), strict=True)
        )
        x = x_t if condition.z_up is None else torch.cat([x_t, condition.z_up], dim=1)
        h = Activation(self.conv_in(x.to(self.dtype)))
        skips = [h]
        for cell in self.down:
            h = self._run(cell, h, modulated)
            skips.append(h)
        h = self._run(self.middle, h, modulated)
        for cell in self.up:
            h = self._run(cell, h, modulated, skips.pop())
        x = h.x.to(self.conv_out.weight.dtype)
        return self.conv_out(self.norm_out(x, sums=(h.sums, None), silu=True))

    def _run(self, module: nn.Module, *inputs: object) -> Activation:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(module, *inputs, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return module(*inputs)
