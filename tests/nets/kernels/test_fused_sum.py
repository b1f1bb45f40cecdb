"""Mirrors cdm_cli/nets/kernels/fused_sum.py; its kernel is interpreted in test_fused_norm.py."""

import pytest
import torch

from cdm_cli.nets.kernels import fused_sum

CASES = [(2, 1.0), (3, 0.5**0.5)]


def drawn(num, generator):
    """Two or three summands [2, 3, 5, 4] in channels-last order, and a bias."""
    parts = torch.randn(num, 2, 5, 4, 3, generator=generator).permute(0, 1, 4, 2, 3)
    return list(parts.unbind()), torch.randn(3, generator=generator)


@pytest.mark.parametrize(("num", "factor"), CASES)
def test_the_sum_and_what_the_norm_needs_of_it(num, factor, generator, monkeypatch):
    monkeypatch.setattr(fused_sum, "SLICE", 8)
    parts, bias = drawn(num, generator)
    y, sums = fused_sum.add_and_sum(parts, bias, factor)
    wanted = (sum(part.double() for part in parts) + bias[:, None, None].double()) * factor
    torch.testing.assert_close(y.double(), wanted, atol=1e-6, rtol=1e-6)
    assert sums.shape == (2, 2, 3, 3), "20 pixels are 3 slices"
    for of_slices, exact in zip(sums, (wanted, wanted.square()), strict=True):
        torch.testing.assert_close(
            of_slices.sum(1).double(), exact.sum((2, 3)), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("num", "factor"), CASES)
def test_its_gradient(num, factor, generator):
    parts, bias = drawn(num, generator)
    tensors = [tensor.requires_grad_() for tensor in (*parts, bias)]
    y, _ = fused_sum.add_and_sum(parts, bias, factor)
    dy = torch.randn(y.shape, generator=generator)
    for ours in torch.autograd.grad(y, tensors[:-1], dy, retain_graph=True):
        torch.testing.assert_close(ours, dy * factor)
    (of_bias,) = torch.autograd.grad(y, bias, dy)
    torch.testing.assert_close(of_bias, dy.sum((0, 2, 3)) * factor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on CUDA")
@pytest.mark.parametrize("shape", [(2, 1024, 256), (3, 64, 768), (1, 5000, 48), (2, 65536, 128)])
@pytest.mark.parametrize("num", [2, 3])
def test_the_kernel_on_cuda(shape, num, generator):
    """bfloat16 in and out, sums of what is stored."""
    a, b, c = torch.randn(3, *shape, generator=generator).cuda().bfloat16()
    bias = torch.randn(shape[2], generator=generator).cuda()
    inputs = (a, b, c if num == 3 else c[..., :0], bias, 0.5**0.5)
    y, sums = fused_sum._summed(*inputs)
    torch.testing.assert_close(y, fused_sum.in_torch(*inputs)[0], atol=1e-2, rtol=1e-2)
    _, of_y = fused_sum.in_torch(y, 0 * y, y[..., :0], 0 * bias, 1.0)
    torch.testing.assert_close(sums, of_y, atol=1e-3, rtol=1e-4)
