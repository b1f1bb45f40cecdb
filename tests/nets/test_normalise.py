"""Mirrors cdm_cli/nets/normalise.py."""

import pytest
import torch
import torch.nn.functional as F

from cdm_cli.nets.normalise import group_norm_in_two_passes, group_norm_on_cpu

FORMS = [group_norm_on_cpu, group_norm_in_two_passes]


@pytest.mark.parametrize("norm", FORMS)
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("added", [None, (24,), (24, 4)])
def test_every_form_agrees_with_pytorch(norm, per_image, added, generator):
    x = 3 + 2 * torch.randn(4, 24, 5, 6, generator=generator)
    shape = (24, 4) if per_image else (24,)
    gain, offset = torch.randn(2, *shape, generator=generator)
    constant = None if added is None else torch.randn(added, generator=generator)
    moved = x if constant is None else x + constant.view(24, -1).t()[:, :, None, None]
    wanted = F.group_norm(moved.double(), 8)
    gain_of, offset_of = (c.view(24, -1).t()[:, :, None, None] for c in (gain, offset))
    wanted = wanted * gain_of + offset_of
    assert torch.allclose(norm(x, 8, gain, offset, constant), wanted.float(), atol=2e-5)


@pytest.mark.parametrize("norm", FORMS)
def test_statistics_of_half_precision_input_are_float32(norm, generator):
    """A mean of 100 has a spacing of 0.5 in bfloat16: statistics in bfloat16 would be off."""
    x = (100 + 4 * torch.randn(2, 8, 16, 16, generator=generator)).to(torch.bfloat16)
    normed = norm(x, 2, torch.ones(8), torch.zeros(8))
    assert normed.dtype == torch.bfloat16
    exact = F.group_norm(x.double(), 2)
    assert (normed.double() - exact).abs().max() < 0.02
    assert normed.double().mean().abs() < 1e-3


@pytest.mark.parametrize("norm", FORMS)
def test_the_memory_order_is_kept(norm):
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    normed = norm(x, 4, torch.ones(8, 2), torch.zeros(8, 2))
    assert normed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", FORMS)
def test_gradients_agree_with_pytorch(norm, generator):
    x = torch.randn(2, 8, 3, 3, generator=generator, requires_grad=True)
    gain, offset = torch.randn(2, 8, generator=generator).unbind()
    upstream = torch.randn(2, 8, 3, 3, generator=generator)
    (ours,) = torch.autograd.grad((norm(x, 4, gain, offset) * upstream).sum(), x)
    (theirs,) = torch.autograd.grad((F.group_norm(x, 4, gain, offset) * upstream).sum(), x)
    assert torch.allclose(ours, theirs, atol=1e-4)
