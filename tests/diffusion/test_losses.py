"""Mirrors cdm_cli/diffusion/losses.py: mpmath, quadrature and closed forms are the references."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cdm_cli.diffusion.losses import (
    LN_2,
    discretised_log_likelihood,
    hybrid,
    kl,
    log_normal_mass,
    prior_bits,
    simple,
    vlb,
)
from cdm_cli.diffusion.process import Gaussian, q_posterior, q_sample
from cdm_cli.diffusion.reverse import p_mean_log_var
from cdm_cli.diffusion.schedules import cosine, linear
from tests.oracles import GaussianData

mpmath.mp.dps = 50
BYTES = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(-1, 1, 1, 1)


@pytest.fixture
def batch(generator):
    """x_0 of bytes, x_t, t, eps and a raw output with v, all for linear(100)."""
    x_0 = torch.randint(0, 256, (5, 3, 4, 4), generator=generator) / 127.5 - 1
    eps = torch.randn(x_0.shape, generator=generator)
    t = torch.tensor([1, 2, 30, 99, 100])
    output = torch.randn(5, 6, 4, 4, generator=generator)
    return x_0, q_sample(linear(100), x_0, t, eps), t, eps, output


def test_simple_is_a_mean_over_the_image():
    eps = torch.zeros(2, 3, 4, 4)
    eps_theta = torch.stack([torch.full((3, 4, 4), 2.0), torch.zeros(3, 4, 4)])
    assert simple(eps, eps_theta).tolist() == [4.0, 0.0]
    eps_theta[1, 0, 0, 0] = 1.0
    assert simple(eps, eps_theta)[1].item() == pytest.approx(1 / 48)


def test_kl_is_that_of_torch(generator):
    mean, other, log_var, other_log_var = torch.randn(4, 2, 3, 4, 4, generator=generator)
    expected = kl_divergence(
        Normal(mean, (0.5 * log_var).exp()), Normal(other, (0.5 * other_log_var).exp())
    )
    got = kl(Gaussian(mean, log_var), Gaussian(other, other_log_var))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert kl(Gaussian(mean, log_var), Gaussian(mean, log_var)).abs().max() == 0


INTERVALS = [(-0.004, 0.004), (-1.0, 2.0), (3.0, 3.01), (-9.0, -8.0), (20.0, 20.1), (-300, -299.9),
             (1e3, 1e3 + 0.1), (0.1, 0.1001), (-6.0, 30.0)]  # fmt: skip


@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_log_normal_mass_in_the_centre_and_both_tails(low, high):
    exact = mpmath.log(mpmath.quad(mpmath.npdf, [low, low + (high - low) / 2, high]))
    got = log_normal_mass(
        torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    )
    assert got.item() == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def likelihood_of_every_byte(mean, std, dtype=torch.float64):
    p = Gaussian(torch.full_like(BYTES, mean).to(dtype), torch.tensor(2 * math.log(std)).to(dtype))
    return discretised_log_likelihood(BYTES.to(dtype), p).flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.003), (0.7, 0.05), (-1.2, 0.4), (3.0, 5.0)])
def test_probabilities_of_the_bytes_sum_to_one(mean, std, dtype):
    total = likelihood_of_every_byte(mean, std, dtype).double().exp().sum().item()
    assert total == pytest.approx(1.0, rel=1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("byte", [0, 1, 100, 254, 255])
@pytest.mark.parametrize("std", [0.004, 0.5])
def test_probability_of_a_byte_is_the_integral_over_its_bin(byte, std):
    x_0 = mpmath.mpf(byte) / mpmath.mpf("127.5") - 1
    low = -mpmath.inf if byte == 0 else x_0 - mpmath.mpf(1) / 255
    high = mpmath.inf if byte == 255 else x_0 + mpmath.mpf(1) / 255
    if low > 0:  # the left tail has relative precision
        low, high = -high, -low
    exact = mpmath.log(mpmath.ncdf(high, 0, std) - mpmath.ncdf(low, 0, std))
    got = likelihood_of_every_byte(0.0, std)[byte].item()
    assert got == pytest.approx(float(exact), rel=1e-5)


def test_far_outliers_have_finite_values_and_gradients(generator):
    log_var = torch.tensor([-25.0, -15.0, 0.0, 10.0]).view(-1, 1, 1, 1).requires_grad_()
    mean = torch.tensor([-3.0, 0.0, 1.0, 4.0]).view(1, -1, 1, 1).requires_grad_()
    x_0 = torch.tensor([-1.0, 1 / 255, 1.0]).view(1, 1, -1, 1)
    value = discretised_log_likelihood(x_0, Gaussian(mean, log_var))
    value.sum().backward()
    assert value.isfinite().all()
    assert log_var.grad.isfinite().all()
    assert mean.grad.isfinite().all()


def terms(batch, **kwargs):
    x_0, x_t, t, _, output = batch
    return vlb(linear(100), x_0, x_t, t, output, **kwargs)


@pytest.mark.parametrize("variance", ["learned", "small", "large"])
@pytest.mark.parametrize("clip", [True, False])
def test_vlb_is_the_term_of_its_t(variance, clip, batch):
    x_0, x_t, t, _, output = batch
    p = p_mean_log_var(linear(100), x_t, t, output, variance=variance, clip=clip)
    q = q_posterior(linear(100), x_0, x_t, t)
    std = (0.5 * p.log_var).exp().expand_as(x_0)
    divergence = kl_divergence(Normal(q.mean, (0.5 * q.log_var).exp()), Normal(p.mean, std))
    expected = divergence.mean((1, 2, 3)) / LN_2
    expected[0] = -discretised_log_likelihood(x_0, p)[0].mean() / LN_2
    got = terms(batch, variance=variance, clip=clip)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("schedule", "weight"), [(cosine(4000), 4.0), (linear(100), 0.1)])
def test_hybrid_weighs_each_term_by_t_over_1000(schedule, weight, batch):
    x_0, x_t, t, eps, output = batch
    term = vlb(schedule, x_0, x_t, t, output, variance="learned")
    expected = simple(eps, output[:, :3]) + weight * term
    torch.testing.assert_close(hybrid(schedule, x_0, x_t, t, eps, output), expected)


def test_hybrid_trains_the_mean_by_simple_and_the_variance_by_vlb(batch):
    x_0, x_t, t, eps, output = batch
    grads = []
    for loss in (
        lambda o: hybrid(linear(100), x_0, x_t, t, eps, o),
        lambda o: simple(eps, o[:, :3]),
        lambda o: 0.1 * vlb(linear(100), x_0, x_t, t, o, variance="learned"),
    ):
        leaf = output.clone().requires_grad_()
        loss(leaf).sum().backward()
        grads.append(leaf.grad)
    both, mean_alone, variance_alone = grads
    torch.testing.assert_close(both[:, :3], mean_alone[:, :3])
    torch.testing.assert_close(both[:, 3:], variance_alone[:, 3:])
    assert variance_alone[:, 3:].abs().sum(dim=(1, 2, 3)).min() > 0


def test_hybrid_needs_v(batch):
    x_0, x_t, t, eps, output = batch
    with pytest.raises(ValueError, match="2C"):
        hybrid(linear(100), x_0, x_t, t, eps, output[:, :3])


@pytest.mark.parametrize("schedule", [cosine(4000), linear(100)])
def test_prior_is_a_kl_divergence(schedule, batch):
    x_0, alpha_bar = batch[0].double(), schedule.alpha_bar[-1]
    q = Normal(alpha_bar.sqrt() * x_0, (1 - alpha_bar).sqrt())
    exact = kl_divergence(q, Normal(torch.zeros_like(x_0), 1.0)).mean((1, 2, 3)) / LN_2
    torch.testing.assert_close(prior_bits(schedule, x_0), exact, rtol=1e-6, atol=1e-12)


def test_the_sum_of_all_terms_is_the_likelihood_of_gaussian_data():
    """Eq. 1 is tight for the true reverse process: it equals -log2 q(x_0), for every x_0.

    The expectation over x_t is an 18-point Gauss-Hermite quadrature, so nothing is random.
    beta_1 is large, so that a byte's bin is narrow against the decoder.
    """
    schedule, data = linear(40, beta_1=0.05, beta_T=0.4), GaussianData(mean=0.1, std=0.2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(18)
    weights = torch.from_numpy(weights / weights.sum())
    x_0 = BYTES[60:220:20]
    images = x_0.expand(-1, -1, 18, -1).reshape(-1, 1, 1, 1)
    eps = torch.from_numpy(nodes).repeat(len(x_0)).view(-1, 1, 1, 1)
    network, bits = data.with_v(schedule), prior_bits(schedule, x_0)
    for time in range(1, schedule.T + 1):
        t = torch.full((len(images),), time)
        x_t = q_sample(schedule, images, t, eps)
        term = vlb(schedule, images, x_t, t, network(x_t, t), variance="learned")
        bits = bits + term.view(-1, 18) @ weights
    exact = -(data.log_density(x_0) + math.log(2 / 255)).flatten() / LN_2
    torch.testing.assert_close(bits, exact, rtol=0, atol=1e-3)
