"""Mirrors cdm_cli/metrics/jackknife.py: closed forms, and kernels whose variance is known."""

import numpy as np
import pytest

from cdm_cli.metrics.jackknife import (
    Estimate,
    compute_pseudo_values,
    estimate,
    interactions,
    variance,
)

G = 10


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def of_groups(sums, f):
    """The estimate of f(mean of groups [G, ...])."""
    return estimate(
        f(sums.mean(0)), lambda out: f(np.delete(sums, out, 0).mean(0)), [2] * len(sums)
    )


def test_of_a_mean_it_is_the_textbooks(rng):
    x = rng.normal(size=G)
    found = of_groups(x, float)
    assert found.error == pytest.approx(x.std(ddof=1) / G**0.5)
    assert found.corrected == pytest.approx(x.mean())
    np.testing.assert_allclose(compute_pseudo_values(found.value, found.without), x)
    together = interactions(found.value, np.array(found.without), np.array(found.without_two))
    np.testing.assert_allclose(together, 0, atol=1e-12)


def test_the_bias_of_a_square_is_gone(rng):
    """Mean of x̄² over draws is μ² + σ² / n; corrected it is μ²."""
    draws = 2 + rng.normal(size=(1000, G))
    found = [of_groups(x, lambda m: float(m * m)) for x in draws]
    corrected = np.array([one.corrected for one in found])
    assert np.mean([one.value for one in found]) == pytest.approx(4 + 1 / G, abs=0.15)
    assert abs(corrected.mean() - 4) < 4 * corrected.std() / len(draws) ** 0.5


@pytest.mark.parametrize("num_groups", [5, 10, 20])
def test_what_pairs_make_is_not_counted_twice(rng, num_groups):
    """|x̄|² in many dimensions around 0 is made of pairs alone: the jackknife doubles them."""
    draws = rng.normal(size=(600, num_groups, 30))
    found = [of_groups(x, lambda m: float(m @ m)) for x in draws]
    values, without, two = map(
        np.array, zip(*[(one.value, one.without, one.without_two) for one in found], strict=True)
    )
    true, twice = values.var(), 2 * num_groups**2 * (num_groups - 2) / (num_groups - 1) ** 3
    assert variance(values, without).mean() == pytest.approx(twice * true, rel=0.15)
    assert (variance(values, without, two) ** 0.5).mean() == pytest.approx(true**0.5, rel=0.1)


def test_paired_differences_cancel_what_is_shared(rng):
    shared, own = rng.normal(size=G), 0.1 * rng.normal(size=G)
    one, other = of_groups(shared + own, float), of_groups(shared, float)
    paired = one.minus(other)
    assert paired.value == pytest.approx(own.mean())
    assert paired.corrected == pytest.approx(one.corrected - other.corrected)
    assert paired.error == pytest.approx(own.std(ddof=1) / G**0.5)
    with pytest.raises(ValueError, match="shorter"):
        one.minus(Estimate(1.0, (1.0, 2.0)))


def test_a_number_alone_has_no_error():
    bare = Estimate(1.5)
    assert (bare.error, bare.corrected) == (None, None)
    few = estimate(1.0, lambda out: float(sum(out)), [2] * 3)
    assert (len(few.without), few.without_two) == (3, ())
    assert few.error > 0


@pytest.mark.parametrize(("sizes", "without", "two"), [
    ([2, 1], 0, 0), ([2, 2], 2, 0), ([1] * 4, 4, 4), ([1, 1, 1, 0], 0, 0), ([9], 0, 0), ([], 0, 0),
])  # fmt: skip
def test_no_group_is_left_out_where_fewer_than_two_samples_would_remain(sizes, without, two):
    found = estimate(1.0, lambda out: 2.0, sizes)
    assert (len(found.without), len(found.without_two)) == (without, two)
