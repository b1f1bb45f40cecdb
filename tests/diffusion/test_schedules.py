"""Mirrors cdm_cli/diffusion/schedules.py; the reference is mpmath at 50 digits."""

import mpmath
import pytest
import torch

from cdm_cli.config import ScheduleConfig
from cdm_cli.diffusion.schedules import (
    cosine,
    from_alpha_bar,
    from_config,
    linear,
    list_openai_times,
    respace,
    space_times,
    trailing_times,
)
from cdm_cli.errors import UsageError

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


def exact_linear(T):
    first, last = mpmath.mpf("0.1") / T, mpmath.mpf(20) / T
    table = [mpmath.mpf(1)]
    for i in range(T):
        table.append(table[-1] * (1 - first - (last - first) * i / (T - 1)))
    return table


def as_float64(table):
    return torch.tensor([float(entry) for entry in table], dtype=torch.float64)


TABLES = {
    "cosine-4000": (cosine(4000), exact_cosine(4000)),
    "cosine-10": (cosine(10), exact_cosine(10)),
    "linear-2000": (linear(2000), exact_linear(2000)),
    "respaced": (
        respace(cosine(4000), torch.tensor([1, 16, 2000, 4000])),
        [exact_cosine(4000)[t] for t in (0, 1, 16, 2000, 4000)],
    ),
}


@pytest.mark.parametrize(("schedule", "alpha_bar"), TABLES.values(), ids=TABLES)
def test_every_table_matches_high_precision(schedule, alpha_bar):
    """Section 2.1 as printed, from alpha_bar at 50 digits, for t = 1..T."""
    steps = list(zip(alpha_bar[1:], alpha_bar[:-1], strict=True))
    beta = [1 - now / prev for now, prev in steps]
    tilde = [
        (1 - prev) / (1 - now) * beta_t for (now, prev), beta_t in zip(steps, beta, strict=True)
    ]
    log_tilde = [mpmath.log(entry) for entry in [tilde[1], *tilde[1:]]]
    for got, exact in (
        (schedule.alpha_bar, alpha_bar[1:]),
        (schedule.beta, beta),
        (schedule.beta_tilde, tilde),
        (schedule.log_beta_tilde, log_tilde),
    ):
        torch.testing.assert_close(got[1:], as_float64(exact), rtol=2e-9, atol=0)


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_cosine_matches_high_precision(T):
    torch.testing.assert_close(cosine(T).alpha_bar, as_float64(exact_cosine(T)), rtol=1e-10, atol=0)


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
    short = respace(schedule, torch.tensor([1, 50, 100]))
    assert torch.equal(short.alpha_bar[1:], schedule.alpha_bar[[1, 50, 100]])
    assert short.times.tolist() == [0, 1, 50, 100]
    kept = (1 - short.beta[1:]).cumprod(0)
    torch.testing.assert_close(kept, schedule.alpha_bar[[1, 50, 100]], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("T", "steps"), [(4000, 250), (4000, 4000), (10, 1), (10, 2)])
def test_spaced_times_cover_both_ends(T, steps):
    times = space_times(T, steps)
    assert len(times.unique()) == steps
    assert times[-1] == T
    assert steps == 1 or times[0] == 1


@pytest.mark.parametrize(("T", "steps"), [(4000, 25), (10, 3), (10, 10), (10, 1)])
def test_trailing_times_are_as_far_apart_as_the_first_is_from_0(T, steps):
    gaps = trailing_times(T, steps).diff(prepend=torch.tensor([0]))
    assert (int(gaps.sum()), len(gaps)) == (T, steps)
    assert int(gaps.max() - gaps.min()) <= 1


@pytest.mark.parametrize("steps", [0, 11])
@pytest.mark.parametrize("times", [space_times, trailing_times])
def test_more_steps_than_times_or_none_are_refused(times, steps):
    with pytest.raises(ValueError, match="do not fit"):
        times(10, steps)


@pytest.mark.parametrize("table", [[], [1.0], [0.5, 0.5], [0.5, 0.6], [0.5, 0.0]])
def test_from_alpha_bar_refuses_what_is_no_schedule(table):
    with pytest.raises(ValueError, match="decrease"):
        from_alpha_bar(torch.tensor(table, dtype=torch.float64))


@pytest.mark.parametrize(
    ("config", "schedule"),
    [
        (ScheduleConfig(T=30), cosine(30)),
        (ScheduleConfig(kind="linear", T=50), linear(50)),
        (ScheduleConfig(kind="linear", T=5, beta_1=0.1, beta_T=0.3), linear(5, 0.1, 0.3)),
        (
            ScheduleConfig(kind="list", T=2, alpha_bar=(0.5, 0.1)),
            from_alpha_bar(torch.tensor([0.5, 0.1], dtype=torch.float64)),
        ),
    ],
)
def test_from_config_builds_what_is_named(config, schedule):
    assert torch.equal(from_config(config).alpha_bar, schedule.alpha_bar)


@pytest.mark.parametrize(
    "config",
    [
        ScheduleConfig(kind="linear", T=10),
        ScheduleConfig(kind="list", T=2, alpha_bar=(0.1, 0.5)),
    ],
)
def test_from_config_tells_the_user_what_is_no_schedule(config):
    with pytest.raises(UsageError, match="schedule: "):
        from_config(config)


def test_to_keeps_the_tables():
    schedule = cosine(10)
    assert schedule.to("cpu") is schedule
    moved = schedule.to("meta")
    assert moved.alpha_bar.device.type == moved.times.device.type == "meta"
    assert moved.beta.device.type == "meta"


SPACED = [  # what openai's packages keep, their times counted from 0
    (1000, "250", [0, 4, 8, 12], 999),
    (1000, "4", [0, 333, 666, 999], 999),
    (10, "4", [0, 3, 6, 9], 9),
    (100, "3", [0, 50, 99], 99),  # 49.5 is rounded to even
    (12, "2,3,4", [0, 3, 4, 6, 7, 8, 9, 10, 11], 11),
    (11, "1,1,1", [0, 4, 8], 8),  # a section of one keeps its first; 4, 4 and 3 times
    (1000, "ddim25", [0, 40, 80], 960),
    (10, "ddim4", [0, 3, 6, 9], 9),
]


@pytest.mark.parametrize(("T", "respacing", "first", "last"), SPACED)
def test_times_of_openai(T, respacing, first, last):
    times = list_openai_times(T, respacing)
    assert (times[: len(first)] - 1).tolist() == first
    assert int(times[-1]) - 1 == last
    assert bool((times[1:] > times[:-1]).all())


@pytest.mark.parametrize("respacing", ["11", "6,5,1", "ddim7", "0"])
def test_a_respacing_that_cannot_be(respacing):
    with pytest.raises(ValueError, match=r"fit|stride|left"):
        list_openai_times(10, respacing)


def test_times_of_openai_are_often_others_than_ours():
    differ = [
        not torch.equal(list_openai_times(T, str(steps)), space_times(T, steps))
        for T in (100, 1000, 4000)
        for steps in range(2, 100)
    ]
    assert 0 < sum(differ) < len(differ)
