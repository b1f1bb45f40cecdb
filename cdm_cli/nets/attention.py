"""Attention between the positions of an image, in the form that each device runs best.

Shapes: q, k, v and y are [B, heads, L, D], for L positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.nets.normalise import is_fused

WIDEST = 256  # channels of a head that fast kernels of attention take


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, whose softmax is in float32."""
    L, D = q.shape[2:]
    if is_fused(q) and q.requires_grad and D > WIDEST and L <= D:
        return attend_by_products(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same as `attend`, with a backward pass made of matrix products."""
    return _ByProducts.apply(q, k, v)  # pyright: ignore[reportReturnType]


class _ByProducts(torch.autograd.Function):
    """Attention whose backward pass computes the weights between positions again, in memory.

    They are no more than q has numbers. With one head of 1024 channels the kernel that is left to
    PyTorch was 6 % of a training step of imagenet-sr64-256 (docs/performance-journal.md).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, ...]:
        q, k, v, dy = (tensor.flatten(0, 1) for tensor in (*ctx.saved_tensors, *grad_outputs))
        heads = ctx.saved_tensors[0].shape[:2]
        return tuple(gradient.unflatten(0, heads) for gradient in _gradients(q, k, v, dy))


def _gradients(q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; all are [B heads, L, D].

    What is rounded to half precision is what the kernels of attention round, too.
    """
    scale = q.shape[2] ** -0.5
    weights = (_float32(q, k.transpose(1, 2)) * scale).softmax(-1)
    dweights = _float32(dy, v.transpose(1, 2))
    dlogits = scale * weights * (dweights - (weights * dweights).sum(-1, keepdim=True))
    weights, dlogits = weights.to(q.dtype), dlogits.to(q.dtype)
    return dlogits @ k, dlogits.transpose(1, 2) @ q, weights.transpose(1, 2) @ dy


def _float32(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product of a and b in float32."""
    return torch.bmm(a, b, out_dtype=torch.float32) if a.is_cuda else a @ b
