"""Gains and offsets of all residual blocks from the embedding of t, s, y: one matrix product.

AdaGN: GroupNorm(x) (1 + scale) + shift, where a linear layer of the block makes scale and shift of
the embedding (Dhariwal & Nichol 2021, Eq. 3). The affine map of the norm and the modulation are
combined into one gain and one offset. Without AdaGN the layer's result is added before the norm.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from cdm_cli.nets.blocks import ResBlock
from cdm_cli.nets.normalise import Modulation


def compute_modulations(
    blocks: Sequence[ResBlock], emb: Tensor, seeds: Tensor | None = None
) -> list[Modulation]:
    """Return the modulation of each block's second norm, for emb [B, E] after its SiLU.

    Gains and offsets are float32 [C, B], or [C] where the embedding is added before the norm.
    seeds: of the dropout after each of these norms, int64 [B, blocks].
    """
    made = _compute_modulations(blocks, emb)
    if seeds is None:
        return made
    each = seeds.t().contiguous().unbind()
    return [one._replace(seed=seed) for one, seed in zip(made, each, strict=True)]


def _compute_modulations(blocks: Sequence[ResBlock], emb: Tensor) -> list[Modulation]:
    """Return gain, offset and what is added, of each block.

    All blocks are of one kind, scale_shift or not. Rows of the product are channels, so that those
    of a block lie together in memory. What is added includes the bias of the first convolution.
    """
    norms = [block.norm_2 for block in blocks]
    channels = [len(norm.weight) for norm in norms]
    biases = [cast(Tensor, block.conv_1.bias) for block in blocks]
    if not blocks[0].scale_shift:
        added = (_multiply(blocks, emb, 1) + _join(biases)).split(channels)
        return [Modulation(n.weight, n.bias, a) for n, a in zip(norms, added, strict=True)]
    scale, shift = _multiply(blocks, emb, 2).chunk(2)
    factor = 1 + scale
    gain = _join([norm.weight for norm in norms]) * factor
    offset = _join([norm.bias for norm in norms]) * factor + shift
    parts = zip(gain.split(channels), offset.split(channels), biases, strict=True)
    return [Modulation(*part) for part in parts]


def _multiply(blocks: Sequence[ResBlock], emb: Tensor, parts: int) -> Tensor:
    """Return the layers' results: the first part of all blocks, then the second; [.., B]."""
    layers = [block.modulation for block in blocks]
    of_layers = [(layer.weight.chunk(parts), layer.bias.chunk(parts)) for layer in layers]
    weight = torch.cat([weights[part] for part in range(parts) for weights, _ in of_layers])
    bias = torch.cat([biases[part] for part in range(parts) for _, biases in of_layers])
    return torch.addmm(bias[:, None], weight, emb.to(weight.dtype).t()).float()


def _join(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parameters)).float()[:, None]
