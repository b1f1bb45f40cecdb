"""Mirrors cdm_cli/nets/attention.py."""

import math

import pytest
import torch

from cdm_cli.nets import attention
from cdm_cli.nets.attention import attend

SHAPES = [(2, 1, 9, 12), (3, 2, 16, 16), (1, 1, 1, 5)]  # B, heads, L, D


def drawn(shape, generator, dtype=torch.float64):
    """Draw q, k and v as parts of one projection, as blocks have them."""
    B, heads, L, D = shape
    qkv = 2 * torch.randn(B, L, heads, 3, D, generator=generator, dtype=dtype)
    return [part.transpose(1, 2) for part in qkv.unbind(3)]


def by_formula(q, k, v):
    return (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(-1) @ v


@pytest.fixture
def fused(monkeypatch):
    monkeypatch.setattr(attention, "is_fused", lambda x: True)
    monkeypatch.setattr(attention, "WIDEST", 4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("fused")
def test_attention_and_its_gradients_by_products(shape, generator):
    inputs = [part.requires_grad_() for part in drawn(shape, generator)]
    y, exact = attend(*inputs), by_formula(*inputs)
    assert y.grad_fn.name() == "_ByProductsBackward"
    dy = torch.randn(shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad(y, inputs, dy)
    theirs = torch.autograd.grad(exact, inputs, dy)
    for found, wanted in zip((y, *ours), (exact, *theirs), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("shape", "trained", "products"),
    [
        ((1, 1, 8, 8), True, True),
        ((1, 1, 8, 8), False, False),
        ((1, 1, 9, 8), True, False),  # the weights would be more than q
        ((1, 2, 4, 4), True, False),  # kernels of attention take it
    ],
)
@pytest.mark.usefixtures("fused")
def test_only_gradients_of_few_positions_and_wide_heads(shape, trained, products, generator):
    inputs = [part.requires_grad_(trained) for part in drawn(shape, generator)]
    y = attend(*inputs)
    assert (y.grad_fn is not None and y.grad_fn.name() == "_ByProductsBackward") is products


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision on CUDA")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("shape", [(4, 1, 256, 1024), (2, 2, 64, 512)])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_cuda_it_is_as_exact_as_a_kernel_of_attention(shape, compiled, generator):
    inputs = [part.cuda().bfloat16().requires_grad_() for part in drawn(shape, generator)]
    dy = torch.randn(shape, generator=generator).cuda().bfloat16()
    exact = [part.detach().double().requires_grad_() for part in inputs]
    wanted = torch.autograd.grad(by_formula(*exact), exact, dy.double())
    call = torch.compile(attend, dynamic=False) if compiled else attend
    plain = torch.nn.functional.scaled_dot_product_attention
    ours, theirs = (torch.autograd.grad(f(*inputs), inputs, dy) for f in (call, plain))
    for found, kernel, of_all in zip(ours, theirs, wanted, strict=True):
        errors = [float((g.double() - of_all).norm() / of_all.norm()) for g in (found, kernel)]
        assert errors[0] < 1.2 * errors[1] < 1.5e-2, "roundings to eight bits"
