"""Mirrors cdm_cli/diffusion/process.py: Bayes' rule in float64 is the reference."""

import pytest
import torch

from cdm_cli.diffusion.process import predict_eps, predict_x_0, q_posterior, q_sample, renoise
from cdm_cli.diffusion.schedules import cosine, linear

SCHEDULES = [cosine(1000), linear(100)]


@pytest.fixture
def x_0(generator):
    return torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)


def test_s_0_is_exactly_clean(x_0, randn_like):
    z_0 = x_0.float()
    assert torch.equal(
        q_sample(cosine(10), z_0, torch.zeros(3, dtype=torch.int64), randn_like(z_0)), z_0
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_q_sample_has_the_marginal_of_iterated_steps(schedule):
    """The mean and variance of t single steps (Section 2.1), followed by hand."""
    mean, var = 1.0, 0.0
    for t in range(1, 51):
        beta = schedule.beta[t].item()
        mean, var = mean * (1 - beta) ** 0.5, var * (1 - beta) + beta
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t = torch.tensor([50])
    no_noise, noise = torch.zeros_like(x), torch.ones_like(x)
    assert q_sample(schedule, x, t, no_noise).item() == pytest.approx(mean, rel=1e-12)
    assert q_sample(schedule, 0 * x, t, noise).item() ** 2 == pytest.approx(var, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_predictions_invert_q_sample(schedule, x_0, randn_like):
    t, eps = torch.tensor([1, 40, 99]), randn_like(x_0)
    x_t = q_sample(schedule, x_0, t, eps)
    torch.testing.assert_close(predict_x_0(schedule, x_t, t, eps), x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predict_eps(schedule, x_t, t, x_0), eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_is_bayes_rule(schedule, x_0, randn_like):
    """q(x_{t-1} | x_t, x_0) as the product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0)."""
    t = torch.tensor([2, 40, 100])
    x_t = randn_like(x_0)
    got = q_posterior(schedule, x_0, x_t, t)
    for b, time in enumerate(t.tolist()):
        beta, prev = schedule.beta[time], schedule.alpha_bar[time - 1]
        precision = (1 - beta) / beta + 1 / (1 - prev)
        mean = ((1 - beta).sqrt() / beta * x_t[b] + prev.sqrt() / (1 - prev) * x_0[b]) / precision
        torch.testing.assert_close(got.mean[b], mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got.log_var[b].squeeze(), -precision.log(), rtol=1e-9, atol=0)


def test_renoise_composes_to_q_sample(x_0):
    """Jumping 0 -> a -> b has the coefficients of 0 -> b."""
    schedule = cosine(100)
    a, b = torch.full((3,), 30), torch.full((3,), 70)
    zero, one = torch.zeros_like(x_0), torch.ones_like(x_0)
    signal = renoise(schedule, q_sample(schedule, x_0, a, zero), a, b, zero)
    torch.testing.assert_close(signal, q_sample(schedule, x_0, b, zero))
    noise_a = renoise(schedule, q_sample(schedule, zero, a, one), a, b, zero)
    noise_b = renoise(schedule, zero, a, b, one)
    total = noise_a.square() + noise_b.square()
    torch.testing.assert_close(total, q_sample(schedule, zero, b, one).square())
