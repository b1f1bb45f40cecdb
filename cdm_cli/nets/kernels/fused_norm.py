"""Group norm, modulation, SiLU, dropout and concatenation as one operator, forward and backward.

For half precision on CUDA, where a network spends half of its time on such traffic
(docs/performance-journal.md): each activation is read once and written once, and the
concatenation of a skip is never written. Elsewhere `cdm_cli.nets.normalise` has the same function
in plain terms.

Shapes: x is [B, P, C_x] and other [B, P, C_other], P pixels; C = C_x + C_other, where C_other
may be 0. gain and offset are float32 [C, B] or [C, 1], added is [C, B], [C, 1] or [C, 0]
(nothing is added). sums and other_sums are what `nets.fused_sum` returns with x and other, or
empty where they are not known. seed is int64 [B], or [1] for all of a batch (`dropout_mask`),
or empty where nothing is dropped. The result has the dtype of x.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.nets.kernels import split_norm
from cdm_cli.nets.kernels.dropout import dropout_mask, new_seed
from cdm_cli.nets.kernels.operators import Operator, launcher
from cdm_cli.nets.kernels.split_norm import (
    EPSILON,
    NO_SUMS,
    Gradients,
    Sums,
    as_tokens,
    by_channel,
    none_of,
    power_of_two,
    whole_groups,
)

MOST_PIXELS = 64 * 64  # of an image whose second reading still comes from the cache
FEWEST_PIXELS = 8 * 8  # of an image whose known sums save more than a second kernel costs
RESIDENT, TILE = 16384, 8192  # numbers that a program holds: all of its own, or a part at a time
RESIDENT_WIDTH, WIDTH = 16, 64  # channels of a program at least: whole sectors, or long rows
TILE_WARPS = 16  # of 32 threads
THREAD, DROPPING_THREAD = 64, 32  # numbers of a thread at most: a mask takes registers, too


class Launch(NamedTuple):
    """How an image is divided among programs; its shape and dropout decide."""

    each: int  # channels of a group
    pad: int  # the same, up to a power of two
    groups: int  # of a program
    block_p: int  # pixels of a tile
    resident: bool
    warps: int


def launch(P: int, C: int, groups: int, dropout: float) -> Launch:
    """Return a tile of all pixels where registers can hold it, else tiles of TILE numbers.

    Of about twenty ways that were tried, each shape has its own fastest; this rule loses least
    over all of them (docs/performance-journal.md).
    """
    pixels = power_of_two(P)
    some, pad = whole_groups(C, groups, RESIDENT_WIDTH)
    numbers = pixels * some * pad
    if numbers <= RESIDENT:
        thread = DROPPING_THREAD if dropout else THREAD
        warps = max(1, min(4, numbers // 1024), numbers // (32 * thread))
        return Launch(C // groups, pad, some, pixels, True, warps)
    some, pad = whole_groups(C, groups, WIDTH)
    block_p = min(pixels, max(16, TILE // (some * pad)))
    return Launch(C // groups, pad, some, block_p, block_p >= P, TILE_WARPS)


def in_torch(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    sums: Tensor, other_sums: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what the kernel does: (y, mean, rstd), the statistics float32 [B, C]."""
    gain, offset, added = (c.t() for c in (gain, offset, added))
    u = torch.cat([x, other], dim=2).float()
    if len(added):
        u = u + added.float()[:, None]
    each = u.shape[2] // groups
    grouped = u.unflatten(2, (groups, each))
    variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0)
    mean, rstd = (m.repeat_interleave(each, 1) for m in (mean, (variance + EPSILON).rsqrt()))
    v = (u - mean[:, None]) * (rstd * gain)[:, None] + offset[:, None]
    y = F.silu(v) if silu else v
    y = y * dropout_mask(seed, y.shape, dropout) if dropout else y
    return y.to(x.dtype), mean, rstd


def launch_forward(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    sums: Tensor, other_sums: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`in_torch` by the kernels; sums that are known spare the first of two readings."""
    B, P, C_x = x.shape
    if P > MOST_PIXELS or (P >= FEWEST_PIXELS and sums.numel()):
        return split_norm.forward(
            x, other, gain, offset, added, sums, other_sums, seed, groups, silu, dropout
        )
    from cdm_cli.nets.kernels.norm_kernel import forward_kernel

    C = C_x + other.shape[2]
    plan = launch(P, C, groups, dropout)
    y = torch.empty(B, P, C, device=x.device, dtype=x.dtype)
    mean, rstd = (torch.empty(B, C, device=x.device, dtype=torch.float32) for _ in range(2))
    launcher(forward_kernel)[_grid(B, C, plan)](
        x, other, gain, offset, added, seed, y, mean, rstd,
        P, C_x, C - C_x, gain.shape[1], added.shape[1], len(seed),
        **_constants(plan, C > C_x, added.shape[1] > 0),
        **split_norm.activation(silu, dropout), EPSILON=EPSILON,
    )  # fmt: skip
    return y, mean, rstd


def launch_backward(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    mean: Tensor, rstd: Tensor, dy: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> Gradients:  # fmt: skip
    """Return the gradients of x and other, and of gain, offset and added for each image, [C, B].

    That of added is [C, 0] where added is.
    """
    if x.shape[1] > MOST_PIXELS:
        return split_norm.backward(
            x, other, gain, offset, added, mean, rstd, dy, seed, groups, silu, dropout
        )
    from cdm_cli.nets.kernels.norm_kernel import backward_kernel

    B, P, C_x = x.shape
    C = C_x + other.shape[2]
    plan = launch(P, C, groups, dropout)
    dx, dother = torch.empty_like(x), torch.empty_like(other)
    dgain, doffset, dadded = (
        torch.empty(C, images, device=x.device, dtype=torch.float32)
        for images in (B, B, B if added.shape[1] else 0)
    )
    launcher(backward_kernel)[_grid(B, C, plan)](
        x, other, gain, offset, added, mean, rstd, dy, seed, dx, dother, dgain, doffset, dadded,
        P, C_x, C - C_x, gain.shape[1], added.shape[1], len(seed),
        **_constants(plan, C > C_x, added.shape[1] > 0), **split_norm.activation(silu, dropout),
    )  # fmt: skip
    return dx, dother, dgain, doffset, dadded


def _grid(B: int, C: int, plan: Launch) -> tuple[int]:
    return (B * (C // (plan.groups * plan.each)),)


def _constants(plan: Launch, joined: bool, added: bool) -> dict[str, Any]:
    return {
        "EACH": plan.each, "PAD": plan.pad, "GROUPS": plan.groups, "BLOCK_P": plan.block_p,
        "RESIDENT": plan.resident, "JOINED": joined, "ADDED": added, "num_warps": plan.warps,
    }  # fmt: skip


def gradients_in_torch(
    x: Tensor, other: Tensor, gain: Tensor, offset: Tensor, added: Tensor,
    mean: Tensor, rstd: Tensor, dy: Tensor, seed: Tensor, groups: int, silu: bool, dropout: float,
) -> Gradients:  # fmt: skip
    """Return what `launch_backward` does, from the formulas."""
    gain, offset, added = (c.t() for c in (gain, offset, added))
    shift = (added.float() if len(added) else 0) - mean
    n = (torch.cat([x, other], dim=2).float() + shift[:, None]) * rstd[:, None]
    v, dv = n * gain[:, None] + offset[:, None], dy.float()
    dv = dv * dropout_mask(seed, dv.shape, dropout) if dropout else dv
    if silu:
        sigmoid = v.sigmoid()
        dv = dv * sigmoid * (1 + v * (1 - sigmoid))
    doffset, dgain = dv.sum(1), (dv * n).sum(1)
    mean_dn, mean_dn_n = (
        (gain * d).unflatten(1, (groups, -1)).mean(2).repeat_interleave(gain.shape[1] // groups, 1)
        / x.shape[1]
        for d in (doffset, dgain)
    )
    du = (dv * gain[:, None] - mean_dn[:, None] - n * mean_dn_n[:, None]) * rstd[:, None]
    dx, dother = du.to(x.dtype).split([x.shape[2], other.shape[2]], dim=2)
    dadded = du.sum(1) if len(added) else du.new_empty(0, du.shape[2])
    return dx.clone(), dother.clone(), by_channel(dgain), by_channel(doffset), by_channel(dadded)


_forward = Operator("normalised", launch_forward, in_torch)
_backward = Operator("normalised_grad", launch_backward, gradients_in_torch)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, _sums, _other_sums, seed, ctx.groups, ctx.silu, ctx.dropout = inputs
    ctx.set_materialize_grads(False)  # of mean and rstd there are none
    ctx.save_for_backward(*tensors, *output[1:], seed)


def _differentiate(ctx: Any, dy: Tensor, of_mean: None, of_rstd: None) -> tuple[Any, ...]:
    assert of_mean is of_rstd is None, "nothing is differentiated through the statistics"
    x, other, gain, offset, added, mean, rstd, seed = ctx.saved_tensors
    dx, dother, *each = _backward(
        x, other, gain, offset, added, mean, rstd, dy.contiguous(), seed,
        ctx.groups, ctx.silu, ctx.dropout,
    )  # fmt: skip
    coefficients = (
        d.sum(1, keepdim=True) if c.shape[1] == 1 else d
        for d, c in zip(each, (gain, offset, added), strict=True)
    )
    dgain, doffset, dadded = coefficients
    return dx, dother, dgain, doffset, dadded.to(added.dtype), *[None] * 6


_forward.differentiate_by(_differentiate, _save)


def normalise(
    x: Tensor,
    groups: int,
    gain: Tensor,
    offset: Tensor,
    *,
    added: Tensor | None = None,
    other: Tensor | None = None,
    sums: Sums = NO_SUMS,
    silu: bool = False,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Normalise the channels of x [B, C_x, H, W] and other [B, C_other, H, W] as one tensor.

    gain, offset and added are [C] or [C, B]; sums that are not known of both are taken of both.
    seed: of dropout, for each image; None: one that is drawn. The result is [B, C, H, W] in
    channels-last order.
    """
    H, W = x.shape[2:]
    x = as_tokens(x)
    other = none_of(x) if other is None else as_tokens(other)
    gain, offset = _columns(gain).float(), _columns(offset).float()
    added = none_of(gain) if added is None else _columns(added)
    nothing = none_of(gain)
    of_x, of_other = (nothing if part is None else part for part in sums)
    if of_x is nothing or (other.shape[2] and of_other is nothing):
        of_x = of_other = nothing
    if not dropout:
        seed = nothing
    elif seed is None:
        seed = new_seed(x.device)
    y, _, _ = _forward(x, other, gain, offset, added, of_x, of_other, seed, groups, silu, dropout)
    return y.unflatten(1, (H, W)).permute(0, 3, 1, 2)


def _columns(coefficients: Tensor) -> Tensor:
    return (coefficients if coefficients.dim() == 2 else coefficients[:, None]).contiguous()
