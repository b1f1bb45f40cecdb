"""Mirrors cdm_cli/diffusion/augment.py: torchvision's blur is the reference."""

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from cdm_cli.config import ConditioningConfig, ScheduleConfig
from cdm_cli.diffusion.augment import (
    blur,
    continuous_alpha_bar,
    draw_blur,
    draw_s,
    flip,
    gaussian,
)
from cdm_cli.diffusion.schedules import cosine, linear


def conditioning(**fields):
    return ConditioningConfig(resolution=8, z_schedule=ScheduleConfig(T=100), **fields)


@pytest.fixture
def z_0(generator):
    return torch.rand(4, 3, 8, 6, generator=generator) * 2 - 1


def counts(config, generator, num=40_000):
    s = draw_s(config, 100, num, generator, "cpu")
    assert s.dtype == torch.int64
    return torch.bincount(s, minlength=101) / num


def test_s_is_uniform_over_0_to_T(generator):
    share = counts(conditioning(), generator)
    assert len(share) == 101
    assert share.min() > 0.6 / 101
    assert share.max() < 1.4 / 101


def test_s_stays_in_its_range_but_for_the_clean_share(generator):
    share = counts(conditioning(s_min=10, s_max=19, s_zero=0.25), generator)
    assert share[0].item() == pytest.approx(0.25, abs=0.02)
    assert share[10:20].sum().item() == pytest.approx(0.75, abs=0.02)
    assert share[1:10].sum() == share[20:].sum() == 0
    assert share[[10, 19]].min() > 0.06


def test_s_0_is_exactly_clean_and_s_T_nearly_noise(z_0, randn_like):
    s, eps = torch.tensor([0, 0, 100, 100]), randn_like(z_0)
    z_s = gaussian(cosine(100), z_0, s, eps)
    assert torch.equal(z_s[:2], z_0[:2])
    torch.testing.assert_close(z_s[2:], eps[2:], rtol=0, atol=0.01)


def test_blur_is_that_of_torchvision_with_each_its_own_sigma(z_0):
    sigma = torch.tensor([0.4, 0.5, 0.6, 1.0])
    expected = torch.stack(
        [gaussian_blur(z, [3, 3], [s]) for z, s in zip(z_0, sigma.tolist(), strict=True)]
    )
    got = blur(z_0, sigma, torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_blur_leaves_the_others_bit_for_bit(z_0):
    apply = torch.tensor([True, False, True, False])
    z = blur(z_0, torch.full((4,), 0.5), apply)
    assert torch.equal(z[~apply], z_0[~apply])
    assert (z[apply] != z_0[apply]).float().mean() > 0.9


def test_blur_keeps_constants_and_range():
    z = blur(torch.ones(1, 1, 5, 5), torch.tensor([0.6]), torch.tensor([True]))
    torch.testing.assert_close(z, torch.ones(1, 1, 5, 5))


def test_draw_blur_takes_half_and_sigma_within_its_range(generator):
    sigma, apply = draw_blur(conditioning(), 20_000, generator, "cpu")
    assert apply.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert sigma.min().item() == pytest.approx(0.4, abs=1e-3)
    assert sigma.max().item() == pytest.approx(0.6, abs=1e-3)
    assert sigma.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert torch.corrcoef(torch.stack([sigma, apply.float()]))[0, 1].abs() < 0.03


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_blur_probability_of_none_and_all(probability, share, generator):
    _, apply = draw_blur(conditioning(blur_probability=probability), 1000, generator, "cpu")
    assert apply.float().mean() == share


def test_flip_mirrors_high_and_low_resolution_alike(z_0, generator):
    """Downsampling and flipping commute, so the pair still belongs together."""
    x_0 = z_0.repeat_interleave(2, -1).repeat_interleave(2, -2)
    mask = torch.tensor([True, False, True, False])
    x, z = flip(mask, x_0, z_0)
    assert torch.equal(z[mask], z_0[mask].flip(-1))
    assert torch.equal(z[~mask], z_0[~mask])
    assert torch.equal(x[:, :, ::2, ::2], z)


def test_flip_takes_bytes():
    x = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4)
    assert flip(torch.tensor([True]), x)[0].flatten().tolist() == [3, 2, 1, 0]


def test_continuous_alpha_bar_fills_its_segment():
    schedule, t = linear(100), torch.tensor([1, 40, 100])
    bottom = continuous_alpha_bar(schedule, t, torch.zeros(3))
    top = continuous_alpha_bar(schedule, t, torch.ones(3))
    torch.testing.assert_close(bottom, schedule.alpha_bar[t])
    torch.testing.assert_close(top, schedule.alpha_bar[t - 1])
    assert bottom.dtype == torch.float64


def test_continuous_alpha_bar_is_uniform_in_its_root(generator):
    """WaveGrad's choice: halfway in u is halfway in sqrt(alpha_bar), not in alpha_bar."""
    schedule, t = linear(100), torch.tensor([60])
    root = continuous_alpha_bar(schedule, t, torch.tensor([0.5])).sqrt()
    ends = schedule.alpha_bar[[59, 60]].sqrt()
    torch.testing.assert_close(root, ends.mean(0, keepdim=True))
