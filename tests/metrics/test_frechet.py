"""Mirrors cdm_cli/metrics/frechet.py: closed forms and 60-digit arithmetic."""

import mpmath
import numpy as np
import pytest
import torch

from cdm_cli.metrics.frechet import FeatureGaussian, Moments, factor
from tests.metrics.whole import frechet_distance


def exact(mu, sigma, mu_ref, sigma_ref):
    """The distance of the given float64 matrices, in 60 digits: (S^½ S_ref S^½)^½ by eigsy."""
    with mpmath.workdps(60):
        S, S_ref = mpmath.matrix(sigma.tolist()), mpmath.matrix(sigma_ref.tolist())
        values, vectors = mpmath.eigsy(S)
        roots = mpmath.diag([mpmath.sqrt(max(value, mpmath.mpf(0))) for value in values])
        root = vectors * roots * vectors.T
        inner = mpmath.eigsy(root * S_ref * root, eigvals_only=True)
        trace = sum(mpmath.sqrt(max(value, mpmath.mpf(0))) for value in inner)
        gap = sum(
            (mpmath.mpf(float(a)) - mpmath.mpf(float(b))) ** 2
            for a, b in zip(mu, mu_ref, strict=True)
        )
        traces = sum(S[i, i] + S_ref[i, i] for i in range(len(mu)))
        return float(gap + traces - 2 * trace)


def integer_covariance(rng, D, rank):
    """A matrix of exactly this rank without any rounding."""
    F = rng.integers(-9, 10, size=(D, rank)).astype(float)
    return F @ F.T


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("rank", "rank_ref"), [(12, 12), (5, 12), (12, 5), (5, 4), (1, 1), (0, 3), (0, 0)]
)
def test_any_rank_against_sixty_digits(rng, rank, rank_ref):
    mu, mu_ref = rng.normal(size=(2, 12))
    sigma, sigma_ref = (integer_covariance(rng, 12, r) for r in (rank, rank_ref))
    expected = exact(mu, sigma, mu_ref, sigma_ref)
    assert frechet_distance(mu, sigma, mu_ref, sigma_ref) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smallest", [1e-6, 1e-12, 1e-15, 1e-18, 1e-30])
def test_near_singular_against_sixty_digits(rng, smallest):
    def covariance():
        Q, _ = np.linalg.qr(rng.normal(size=(10, 10)))
        sigma = (Q * np.geomspace(1, smallest, 10)) @ Q.T
        return (sigma + sigma.T) / 2

    mu, mu_ref = rng.normal(size=(2, 10))
    sigma, sigma_ref = covariance(), covariance()
    expected = exact(mu, sigma, mu_ref, sigma_ref)
    assert frechet_distance(mu, sigma, mu_ref, sigma_ref) == pytest.approx(expected, abs=1e-6)


def test_commuting_gaussians_have_a_closed_form(rng):
    mu, mu_ref = rng.normal(size=(2, 30))
    std, std_ref = rng.uniform(0.1, 2, size=(2, 30))
    expected = ((mu - mu_ref) ** 2).sum() + ((std - std_ref) ** 2).sum()
    distance = frechet_distance(mu, np.diag(std**2), mu_ref, np.diag(std_ref**2))
    assert distance == pytest.approx(expected, rel=1e-13)


def test_distance_to_itself_is_zero_and_order_does_not_matter(rng):
    x, y = rng.normal(size=(2, 40, 8))
    a, b = (FeatureGaussian.of(z.mean(0), np.cov(z, rowvar=False)) for z in (x, y))
    assert a.distance(a) == pytest.approx(0, abs=1e-12)
    assert a.distance(b) == pytest.approx(b.distance(a), rel=1e-12)


def test_fewer_samples_than_dimensions(rng):
    """Both covariances come from 20 samples in 64 dimensions: exact by singular values."""
    x, y = rng.normal(size=(2, 20, 64)) * 3
    F, G = ((z - z.mean(0)) / np.sqrt(19) for z in (x, y))
    trace = np.linalg.svd(F @ G.T, compute_uv=False).sum()
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + (F**2).sum() + (G**2).sum() - 2 * trace
    sigma, sigma_ref = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    assert factor(sigma).shape == (64, 19)
    distance = frechet_distance(x.mean(0), sigma, y.mean(0), sigma_ref)
    assert distance == pytest.approx(expected, rel=1e-11)


def test_bad_shapes_and_values_are_refused(rng):
    mu, sigma = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(mu, np.eye(4), mu, sigma)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(mu * np.nan, sigma, mu, sigma)
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(mu, sigma, np.zeros(4), np.eye(4))


def test_streaming_moments_equal_numpy_in_one_piece(rng):
    x = rng.normal(2.0, 0.5, size=(1000, 16)).astype(np.float32)
    moments, rest = Moments.zeros(16), Moments.zeros(16)
    for start in (0, 300, 301):
        moments.add(torch.from_numpy(x[start : {0: 300, 300: 301, 301: 700}[start]]))
    rest.add(torch.from_numpy(x[700:]))
    moments.merge(rest)
    exact_x = x.astype(np.float64)
    assert moments.num == 1000
    np.testing.assert_allclose(moments.mu, exact_x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.sigma, np.cov(exact_x, rowvar=False), rtol=1e-11, atol=1e-13)
    less = moments.without(rest)
    np.testing.assert_allclose(less.sigma, np.cov(exact_x[:700], rowvar=False), atol=1e-12)


def test_moments_refuse_what_has_no_covariance():
    moments = Moments.zeros(3)
    moments.add(torch.ones(1, 3))
    with pytest.raises(ValueError, match="two samples"):
        _ = moments.sigma
    moments.add(torch.full((1, 3), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        moments.gaussian()
