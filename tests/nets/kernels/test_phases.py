"""Mirrors cdm_cli/nets/kernels/phases.py.

The convolution of a doubled image, whatever computes it.
"""

import pytest
import torch
import torch.nn.functional as F

from cdm_cli.nets.kernels import fused_sum, phases
from tests.nets.interpreting import interpreted

SHAPES = [(2, 3, 4, 6, 5), (1, 24, 8, 3, 7), (3, 16, 16, 1, 1)]  # B, C, C', H, W
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on CUDA")


def drawn(B, C, C_out, H, W, generator, dtype=torch.float32):
    x = torch.randn(B, C, H, W, generator=generator, dtype=dtype)
    weight = torch.randn(C_out, C, 3, 3, generator=generator, dtype=dtype) / C**0.5
    return x, weight, torch.randn(C_out, generator=generator, dtype=dtype)


def plain(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_phases_are_the_convolution_of_the_doubled_image(shape, generator):
    x, weight, bias = drawn(*shape, generator, torch.float64)
    H, W = x.shape[2:]
    convolved = F.conv2d(x, phases.phase_weights(weight, torch.float64), padding=1)
    wanted = plain(x, weight, 0 * bias)
    for (a, d), phase in zip(phases.PHASES, convolved.chunk(4, dim=1), strict=True):
        torch.testing.assert_close(phase[:, :, a : a + H, d : d + W], wanted[:, :, a::2, d::2])


def test_weights_are_added_before_they_are_rounded():
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1:, 1:] = torch.tensor([[2**-9, 0.0], [1.0, -1.0]])
    added = phases.phase_weights(weight, torch.bfloat16)
    assert added.dtype == torch.bfloat16
    assert added[0, 0, 1, 1] == 2**-9, "in bfloat16, 1 + 1/512 would be 1"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_result_and_its_sums(shape, generator, monkeypatch):
    monkeypatch.setattr(fused_sum, "SLICE", 8)
    x, weight, bias = drawn(*shape, generator)
    y, sums = phases.enlarge_by_phases(x, weight, bias)
    wanted = plain(x, weight, bias)
    torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
    for of_slices, exact in zip(sums, (wanted, wanted.square()), strict=True):
        torch.testing.assert_close(of_slices.sum(1), exact.sum((2, 3)), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradients(shape, generator):
    inputs = [tensor.requires_grad_() for tensor in drawn(*shape, generator)]
    y, wanted = phases.enlarge_by_phases(*inputs)[0], plain(*inputs)
    dy = torch.randn(y.shape, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(wanted, inputs, dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


INTERPRETED = """
import torch
torch.library.wrap_triton = lambda kernel: kernel
from cdm_cli.nets.kernels import fused_sum
from cdm_cli.nets.kernels import phases
fused_sum.SLICE, fused_sum.TILE = 16, 128
generator = torch.Generator().manual_seed(0)
for B, H, W, C in ((2, 3, 5, 24), (1, 4, 2, 48), (2, 1, 1, 16)):
    v = torch.randn(B, H + 1, W + 1, 4 * C, generator=generator)
    bias = torch.randn(C, generator=generator)
    dy = torch.randn(B, 4 * H * W, C, generator=generator)
    for ours, plain in zip(phases.launch(v, bias), phases.in_torch(v, bias)):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
    ours, plain = (f(dy, H, W) for f in (phases.launch_backward, phases.gradient_in_torch))
    assert torch.equal(ours, plain)
print("the same")
"""


def test_the_kernels_as_triton_interprets_them():
    assert interpreted(INTERPRETED) == "the same"


@CUDA
@pytest.mark.parametrize(("B", "H", "W", "C"), [(2, 32, 32, 256), (3, 8, 8, 768), (1, 50, 7, 48)])
def test_the_kernels_on_cuda(B, H, W, C, generator):
    """bfloat16 in and out; the sums are of what is stored."""
    v = torch.randn(B, H + 1, W + 1, 4 * C, generator=generator).cuda().bfloat16()
    bias = torch.randn(C, generator=generator).cuda()
    y, sums = phases._interleaved(v, bias)
    assert torch.equal(y, phases.in_torch(v, bias)[0])
    torch.testing.assert_close(sums, fused_sum.sums_of_slices(y), atol=1e-3, rtol=1e-4)
    dy = torch.randn(y.shape, generator=generator).cuda().bfloat16()
    assert torch.equal(phases._interleaved_grad(dy, H, W), phases.gradient_in_torch(dy, H, W))


@CUDA
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_in_half_precision_it_is_the_convolution_within_rounding(compiled, dtype, generator):
    """dtype: that of the weights, which training keeps in float32."""
    shape = (4, 128, 64, 16, 16)
    x, weight, bias = (tensor.cuda() for tensor in drawn(*shape, generator))
    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
    inputs = [tensor.requires_grad_() for tensor in (x, weight.to(dtype), bias.to(dtype))]

    def call(*inputs):
        return phases.enlarge_by_phases(*inputs)[0]  # a compiler would ask for a gradient of sums

    y = (torch.compile(call, dynamic=False) if compiled else call)(*inputs)
    exact = plain(*(tensor.double() for tensor in inputs))
    dy = torch.randn(y.shape, generator=generator).cuda().bfloat16()
    ours = torch.autograd.grad(y, inputs, dy)
    for found, wanted in zip(
        (y, *ours), (exact, *torch.autograd.grad(exact, inputs, dy.double())), strict=True
    ):
        error = (found.double() - wanted.double()).norm() / wanted.double().norm()
        assert error < 6e-3, "two or three roundings to eight bits"
