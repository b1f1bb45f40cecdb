"""Mirrors cdm_cli/nets/moments.py."""

import pytest
import torch

from cdm_cli.nets import moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_each_channel(dtype, generator):
    x = torch.randn(3, 5, 4, 6, generator=generator).to(dtype)
    total, squares = moments.channel_moments(x)
    assert torch.allclose(total.double(), x.double().sum((2, 3)), atol=1e-5)
    assert torch.allclose(squares.double(), x.double().square().sum((2, 3)), atol=1e-4)


def test_the_operator_is_differentiable_and_well_formed(generator):
    """The same operator that runs the kernel on CUDA, by its CPU form."""
    x = torch.randn(2, 6, 5, generator=generator, requires_grad=True)
    grad = torch.randn(2, 2, 5, generator=generator)
    (ours,) = torch.autograd.grad((moments._moments(x) * grad).sum(), x)
    (plain,) = torch.autograd.grad((moments.moments_in_torch(x) * grad).sum(), x)
    assert torch.allclose(ours, plain, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on CUDA")
@pytest.mark.parametrize("shape", [(3, 65, 80), (2, 4096, 192), (1, 1024, 64)])
def test_the_kernel_computes_the_same(shape):
    x = torch.randn(shape, device="cuda").to(torch.bfloat16)
    exact = torch.stack([x.double().sum(1), x.double().square().sum(1)], dim=1)
    assert torch.allclose(moments._moments(x).double(), exact, rtol=1e-5, atol=1e-2)
