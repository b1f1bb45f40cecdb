"""Mirrors cdm_cli/diffusion/schedules.py; the reference is mpmath at 50 digits."""

import mpmath
import pytest
import torch

from cdm_cli.diffusion.schedules import cosine, from_alpha_bar, linear, respaced, spaced_times

mpmath.mp.dps = 50


def exact_cosine(T):
    def f(t):
        return (
            mpmath.cos(
                (mpmath.mpf(t) / T + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2
            )
            ** 2
        )

    alpha_bar, table = mpmath.mpf(1), [mpmath.mpf(1)]
    for t in range(1, T + 1):
        alpha_bar *= 1 - min(1 - f(t) / f(t - 1), mpmath.mpf("0.999"))
        table.append(alpha_bar)
    return table


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_cosine_matches_high_precision(T):
    exact = torch.tensor([float(a) for a in exact_cosine(T)], dtype=torch.float64)
    torch.testing.assert_close(cosine(T).alpha_bar, exact, rtol=1e-10, atol=0)


def test_cosine_clips_beta_T_alone():
    assert (cosine(4000).beta >= 0.999 - 1e-12).nonzero().flatten().tolist() == [4000]
    assert cosine(4000).alpha_bar[-1].item() == pytest.approx(1.5e-10, rel=0.05)


@pytest.mark.parametrize("T", [100, 1000, 2000])
def test_linear_scales_with_T(T):
    schedule = linear(T)
    assert schedule.beta[1].item() == pytest.approx(0.1 / T, rel=1e-9)
    assert schedule.beta[T].item() == pytest.approx(20 / T, rel=1e-9)
    assert 1e-5 < schedule.alpha_bar[T].item() < 1e-4


def test_linear_refuses_beta_above_one():
    with pytest.raises(ValueError, match="leaves"):
        linear(20)


def test_tables_start_at_the_clean_image():
    schedule = cosine(7)
    assert len(schedule.alpha_bar) == 8
    assert schedule.alpha_bar[0] == 1
    assert schedule.beta[0] == 0
    assert schedule.beta_tilde[1] == 0
    assert schedule.log_beta_tilde[1] == schedule.beta_tilde[2].log()


def test_respaced_keeps_alpha_bar_and_original_times():
    schedule = cosine(100)
    short = respaced(schedule, torch.tensor([1, 50, 100]))
    assert torch.equal(short.alpha_bar[1:], schedule.alpha_bar[[1, 50, 100]])
    assert short.times.tolist() == [0, 1, 50, 100]
    kept = (1 - short.beta[1:]).cumprod(0)
    torch.testing.assert_close(kept, schedule.alpha_bar[[1, 50, 100]], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("T", "steps"), [(4000, 250), (4000, 4000), (10, 1), (10, 2)])
def test_spaced_times_cover_both_ends(T, steps):
    times = spaced_times(T, steps)
    assert len(times.unique()) == steps
    assert times[-1] == T
    assert steps == 1 or times[0] == 1


@pytest.mark.parametrize("table", [[], [1.0], [0.5, 0.5], [0.5, 0.6], [0.5, 0.0]])
def test_from_alpha_bar_refuses_what_is_no_schedule(table):
    with pytest.raises(ValueError, match="decrease"):
        from_alpha_bar(torch.tensor(table, dtype=torch.float64))
