"""Group normalisation with what surrounds it, in the form that each device runs best.

Shapes: x is [B, C, H, W]; gain, offset and added are [C] or [C, B], the order in which one matrix
product makes them for many norms (`nets.modulation`). Statistics and coefficients are float32 (or
better) whatever x is.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.nets.kernels.dropout import dropout_mask
from cdm_cli.nets.kernels.split_norm import EPSILON, NO_SUMS, Sums

HALF = (torch.bfloat16, torch.float16)


class Modulation(NamedTuple):
    """What a norm multiplies by, adds after and adds before: [C], or [C, B] of an embedding.

    seed: of the dropout behind it, for each image (`nets.kernels.dropout`).
    """

    gain: Tensor
    offset: Tensor
    added: Tensor | None = None
    seed: Tensor | None = None  # int64 [B]


def group_norm(
    x: Tensor, groups: int, modulation: Modulation, *, other: Tensor | None = None,
    sums: Sums = NO_SUMS, silu: bool = False, dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Normalise each group of channels of x + added, then multiply by gain and add offset.

    modulation: gain, offset, added, and the seed of dropout; without a seed torch's default
    generator drops. other: the last channels [B, C', H, W], where `is_fused` and x holds the first
    ones alone. sums: of x and other, where they came with these. dropout: a probability, 0 where
    nothing is to be dropped, as in evaluation.
    On CPU by PyTorch's kernel, which is the fast one there. On CUDA that kernel leaves the
    channels-last order: half precision has kernels of our own, else statistics and
    multiply-add are written out.
    """
    gain, offset, added, seed = modulation
    if is_fused(x):
        from cdm_cli.nets.kernels.fused_norm import (
            normalise,  # brings the compiler, a second's load
        )

        return normalise(
            x, groups, gain, offset,
            added=added, other=other, sums=sums, silu=silu, dropout=dropout, seed=seed,
        )  # fmt: skip
    assert other is None, "only the fused kernel joins"
    if x.device.type == "cpu":
        x = group_norm_on_cpu(x, groups, gain, offset, added)
    else:
        x = group_norm_in_two_passes(x, groups, gain, offset, added)
    x = F.silu(x) if silu else x
    if not dropout or seed is None:
        return F.dropout(x, dropout)
    return x * dropout_mask(seed, x.shape, dropout).to(x.dtype)


def is_fused(x: Tensor) -> bool:
    """Return whether a kernel of our own normalises x with all that surrounds it."""
    return x.is_cuda and x.dtype in HALF


def group_norm_on_cpu(
    x: Tensor, groups: int, gain: Tensor, offset: Tensor, added: Tensor | None = None
) -> Tensor:
    """`group_norm` by PyTorch's kernel."""
    if added is not None:
        x = x + _plane(added, x)
    if gain.dim() == 1:
        return F.group_norm(x, groups, gain.float(), offset.float(), EPSILON)
    normed = F.group_norm(x, groups, eps=EPSILON)
    return torch.addcmul(_plane(offset, x), normed, _plane(gain, x))


def group_norm_in_two_passes(
    x: Tensor, groups: int, gain: Tensor, offset: Tensor, added: Tensor | None = None
) -> Tensor:
    """`group_norm` for float32 on CUDA: the variance is taken about the mean."""
    if added is not None:
        x = x + _plane(added, x)
    var, mean = torch.var_mean(x.float().unflatten(1, (groups, -1)), dim=(2, 3, 4), correction=0)
    each = x.shape[1] // groups
    a = (var + EPSILON).rsqrt().repeat_interleave(each, dim=1) * gain.t()
    b = offset.t() - mean.repeat_interleave(each, dim=1) * a
    return (x.float() * a[:, :, None, None] + b[:, :, None, None]).to(x.dtype)


def _plane(coef: Tensor, x: Tensor) -> Tensor:
    return (coef.t() if coef.dim() == 2 else coef[None]).to(x.dtype)[:, :, None, None]
