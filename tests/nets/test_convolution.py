"""Mirrors cdm_cli/nets/convolution.py."""

import pytest
import torch
import torch.nn.functional as F

from cdm_cli.nets import convolution
from cdm_cli.nets.convolution import convolve, convolve_doubled, double, pad_to_eights


@pytest.mark.parametrize("channels", [3, 6, 8, 9])
def test_channels_of_zeros_change_no_convolution(channels, generator):
    conv = torch.nn.Conv2d(channels, 5, 3, padding=1)
    x = torch.randn(2, channels, 6, 7, generator=generator)
    assert pad_to_eights(x).shape[1] % 8 == 0
    y = torch.nn.functional.conv2d(
        pad_to_eights(x), pad_to_eights(conv.weight), conv.bias, padding=1
    )
    torch.testing.assert_close(y, conv(x))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_doubling_is_nearest_neighbour_and_so_is_its_gradient(order, generator):
    x = torch.randn(2, 3, 4, 5, generator=generator).contiguous(memory_format=order)
    dy = torch.randn(2, 3, 8, 10, generator=generator)
    x.requires_grad_()
    wanted = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.equal(double(x), wanted)
    assert double(x).is_contiguous(memory_format=torch.channels_last)
    (ours,), (theirs,) = (torch.autograd.grad(y, x, dy) for y in (double(x), wanted))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.fixture
def fused(monkeypatch):
    monkeypatch.setattr(convolution, "is_fused", lambda x: True)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.usefixtures("fused")
def test_doubled_and_convolved_by_phases_or_not(biased, fits, generator, monkeypatch):
    monkeypatch.setattr(convolution, "FEW_CHANNELS", 1 if fits else 0)
    conv = torch.nn.Conv2d(12, 5, 3, padding=1, bias=biased)
    x = torch.randn(2, 12, 3, 4, generator=generator)
    y, sums = convolve_doubled(x, conv.weight, conv.bias)
    torch.testing.assert_close(y, conv(double(x)), atol=1e-5, rtol=1e-5)
    assert (sums is not None) == fits


@pytest.mark.parametrize("parts", [[4, 4, 2], [4, 4], [4, 1]])
@pytest.mark.usefixtures("fused")
def test_weights_have_the_same_gradient_in_parts(parts, generator, monkeypatch):
    monkeypatch.setattr(convolution, "PART", 4)
    monkeypatch.setattr(convolution, "NARROW", 2)
    monkeypatch.setattr(convolution, "LARGE", 35)
    taken, split = [], convolution._gradients
    monkeypatch.setattr(
        convolution, "_gradients", lambda *a: taken.append(a[1].shape[1]) or split(*a)
    )
    conv = torch.nn.Conv2d(sum(parts), 6, 3, padding=1, bias=False)
    x = torch.randn(2, sum(parts), 5, 7, generator=generator, requires_grad=True)
    dy = torch.randn(2, 6, 5, 7, generator=generator)
    y, wanted = convolve(x, conv.weight), F.conv2d(x, conv.weight, padding=1)
    inputs = [x, conv.weight]
    ours = torch.autograd.grad(y, inputs, dy)
    for found, exact in zip(
        (y, *ours), (wanted, *torch.autograd.grad(wanted, inputs, dy)), strict=True
    ):
        torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)
    assert taken == ([sum(parts), *parts] if parts[-1] == 2 else []), "where cuDNN is slow, alone"


@pytest.mark.parametrize(("side", "trained"), [(128, True), (127, True), (128, False)])
@pytest.mark.usefixtures("fused")
def test_only_gradients_of_large_images_are_in_parts(side, trained):
    weight = torch.randn(1, 384, 3, 3, requires_grad=trained)
    x = torch.randn(1, 384, side, side, requires_grad=True)
    found = convolve(x, weight).grad_fn
    assert (type(found).__name__ == "_InPartsBackward") is (trained and side == 128)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision on CUDA")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("compiled", [False, True])
def test_in_parts_on_cuda_it_is_the_gradient_within_rounding(compiled, generator):
    x = torch.randn(1, 384, 128, 128, generator=generator).cuda().bfloat16()
    weight = torch.randn(128, 384, 3, 3, generator=generator).cuda()
    inputs = [
        tensor.contiguous(memory_format=torch.channels_last).requires_grad_()
        for tensor in (x, weight)
    ]
    y = (torch.compile(convolve, dynamic=False) if compiled else convolve)(*inputs)
    exact = F.conv2d(*(tensor.double() for tensor in inputs), padding=1)
    dy = torch.randn(y.shape, generator=generator).cuda().bfloat16()
    ours = torch.autograd.grad(y, inputs, dy)
    theirs = torch.autograd.grad(exact, inputs, dy.double())
    assert ours[1].dtype == torch.float32
    for found, wanted in zip((y, *ours), (exact, *theirs), strict=True):
        error = (found.double() - wanted.double()).norm() / wanted.double().norm()
        assert error < 6e-3, "two or three roundings to eight bits"
