"""Marginals of cdm_cli/diffusion/samplers.py: exact ones first, then drawn ones.

The ideal network of Gaussian data is affine, so `Impulses` gives every marginal without
sampling error; the order of calls is tested next door, in test_samplers.py.
"""

import math
from functools import partial
from itertools import islice
from typing import get_args

import pytest
import torch

from cdm_cli.diffusion.process import q_sample
from cdm_cli.diffusion.samplers import ancestral, bind, ddim, dpm_solver_pp, restart
from cdm_cli.diffusion.schedules import cosine, from_alpha_bar, linear, spread_schedule
from cdm_cli.names import Sampler
from tests.oracles import GaussianData, Impulses, MixtureData

DATA = GaussianData(mean=0.3, std=0.5)

SCHEDULES = {
    "cosine": cosine(60),
    "linear": linear(60),
    "respaced": spread_schedule(cosine(4000), 25, visit=(501, 2000)),
}


def ideal_states(schedule):
    """All (t, mean, variance) of ancestral sampling with the true mean and variance."""
    impulses = Impulses(schedule.T)
    mean, var = DATA.moments(schedule, schedule.T)
    steps = ancestral(
        DATA.with_v(schedule), schedule, impulses.source(mean, var**0.5),
        randn_like=impulses.randn_like, variance="learned", clip=False,
    )  # fmt: skip
    return {t: impulses.moments(x_t) for t, x_t in steps}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_truncated_state_has_exactly_the_marginal_of_the_non_truncated(schedule):
    """Section 3.3: z_s and z'_s share their marginal when the base model is perfect."""
    states = ideal_states(schedule)
    for s in range(1, schedule.T):
        assert states[s] == pytest.approx(DATA.moments(schedule, s), rel=1e-8)


def test_x_0_is_the_mean_given_x_1():
    schedule = cosine(60)
    alpha_bar = schedule.alpha_bar[1].item()
    unexplained = DATA.std**2 * (1 - alpha_bar) / (alpha_bar * DATA.std**2 + 1 - alpha_bar)
    assert ideal_states(schedule)[0] == pytest.approx((0.3, 0.25 - unexplained), rel=1e-8)


def test_restart_keeps_the_marginal_exactly():
    """Section 4.2 is harmless for a perfect model: noise to r, then come back."""
    schedule, r, impulses = cosine(60), 30, Impulses(31)
    sample = bind("ancestral", randn_like=impulses.randn_like, variance="learned", clip=False)
    steps = restart(
        sample, DATA.with_v(schedule), schedule, impulses.source(DATA.mean, DATA.std), r,
        randn_like=impulses.randn_like,
    )  # fmt: skip
    for t, x_t in islice(steps, r - 1):
        assert impulses.moments(x_t) == pytest.approx(DATA.moments(schedule, t), rel=1e-8)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("ks", [(0.3,), (0.0, 0.7, 1.0), (1.0, 0.2)])
def test_where_x_0_is_known_every_step_has_the_marginal_of_the_forward_process(name, ks):
    """Data of one point: the ideal network knows x_0, so no step is too long, whatever k."""
    data, few = GaussianData(mean=0.3, std=0.0), spread_schedule(cosine(4000), 7)
    stochasticity = [ks[i % len(ks)] for i in range(few.T)]
    impulses = Impulses(few.T)
    mean, var = data.moments(few, few.T)
    sample = bind(name, randn_like=impulses.randn_like, clip=False, stochasticity=stochasticity)
    for t, x_t in sample(data.eps_theta(few), few, impulses.source(mean, var**0.5)):
        assert impulses.moments(x_t) == pytest.approx(data.moments(few, t), rel=1e-8, abs=1e-12)


def error_at_s(sampler, steps):
    """Error of the variance at log-SNR 3 after steps that are uniform in log-SNR from -8."""
    log_snr = torch.cat(
        [torch.linspace(6, 3, 2, dtype=torch.float64)[:1],
         torch.linspace(3, -8, steps + 1, dtype=torch.float64)]
    )  # fmt: skip
    schedule = from_alpha_bar(log_snr.sigmoid())
    mean, var = DATA.moments(schedule, schedule.T)
    impulses = Impulses(schedule.T)
    x_T = impulses.source(mean, var**0.5)
    steps = sampler(impulses.randn_like)(DATA.eps_theta(schedule), schedule, x_T)
    x_s = next(x_t for t, x_t in steps if t == 2)
    return abs(impulses.moments(x_s)[1] - DATA.moments(schedule, 2)[1])


def between_both(name, noise):
    """The sampler with a stochasticity of 0.9 at any number of steps."""
    return lambda network, schedule, x_T: bind(
        name, randn_like=noise, clip=False, stochasticity=[0.9] * schedule.T
    )(network, schedule, x_T)


def no_noise(x):
    raise AssertionError("a deterministic sampler drew noise")


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (lambda _: partial(ddim, randn_like=no_noise, clip=False), 1),
        (lambda _: partial(dpm_solver_pp, clip=False), 2),
        (lambda noise: partial(ancestral, randn_like=noise, clip=False), 1),
        (lambda noise: partial(dpm_solver_pp, randn_like=noise, clip=False), 2),
        (lambda noise: between_both("ddim", noise), 1),
        (lambda noise: between_both("dpm-solver++", noise), 2),
    ],
)
def test_order_of_convergence_at_s(sampler, order):
    """Halving the step divides the error of the truncated state by 2 ** order."""
    ratio = error_at_s(sampler, 320) / error_at_s(sampler, 640)
    assert math.log2(ratio) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", get_args(Sampler))
@pytest.mark.parametrize("s", [0, 15])
def test_two_modes_come_out_alike_truncated_or_not(name, s, randn_like, generator):
    schedule, data = cosine(60), MixtureData(low=-0.6, high=0.4, std=0.15)
    z_T = randn_like(torch.empty(20_000, 1, 1, 1))
    steps = bind(name, randn_like=randn_like, clip=False)(data.eps_theta(schedule), schedule, z_T)
    z_s = next(z_t for t, z_t in steps if t == s)
    z_0 = data.sample(randn_like(z_T), torch.rand(z_T.shape, generator=generator))
    z_s_prime = q_sample(schedule, z_0, torch.full((20_000,), s), randn_like(z_0))
    quantiles = torch.tensor([0.1, 0.25, 0.4, 0.6, 0.75, 0.9])
    torch.testing.assert_close(
        z_s.flatten().quantile(quantiles), z_s_prime.flatten().quantile(quantiles),
        rtol=0, atol=0.03,
    )  # fmt: skip
