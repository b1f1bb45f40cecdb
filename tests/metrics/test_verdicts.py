"""Mirrors cdm_cli/metrics/verdicts.py: how often any of many equal points is called worse."""

from dataclasses import replace

import numpy as np
import pytest

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.verdicts import (
    compare_with_lowest,
    find_least_told,
    list_signs,
    measure_gaps,
    reach_verdicts,
)

P, G = 13, 10


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def measured(y):
    """Return numbers whose pseudo-values are y [P, G]."""
    without = (G * y.mean(1, keepdims=True) - y) / (G - 1)
    pairs = zip(y.mean(1), without, strict=True)
    return [Estimate(float(value), tuple(left)) for value, left in pairs]


def correlated(rng, near, num=P):
    """Noise [P, G] of points of which neighbours are correlated by `near`, as in a sweep."""
    C = near ** np.abs(np.subtract.outer(np.arange(num), np.arange(num)))
    return np.linalg.cholesky(C) @ rng.normal(size=(num, G))


@pytest.mark.parametrize("near", [0.0, 0.8, 0.99])
def test_equal_points_are_called_worse_in_one_family_of_twenty(rng, near):
    """Seven of 150 families are expected; more than 16 come with one seed in a thousand."""
    families = (reach_verdicts(measured(5 + correlated(rng, near))) for _ in range(150))
    wrong = sum(any(one.standing == "worse" for one in family) for family in families)
    assert 1 <= wrong <= 16


def test_points_tied_for_the_best_stay_beside_points_that_are_worse(rng):
    """A point far off takes no part of the error away from those that are equal."""
    theta = np.array([0] * 7 + [50] * 6)
    wrong = 0
    for _ in range(80):
        family = reach_verdicts(measured(theta[:, None] + correlated(rng, 0.5)))
        assert all(one.standing == "worse" for one in family[7:])
        wrong += any(one.standing == "worse" for one in family[:7])
    assert 1 <= wrong <= 11


@pytest.mark.parametrize("num", [2, 5, P])
def test_what_is_told_begins_at_the_least(rng, num):
    """A point found above the lowest by half more is called worse, by half less it is not."""
    told = {0.5: 0, 1.5: 0}
    for _ in range(40):
        y = 5 + correlated(rng, 0.8, num)
        least = find_least_told(measured(y))
        for share in told:
            found = y.copy()
            found[0] += y[1:].mean(1).min() + share * least - y[0].mean()
            told[share] += reach_verdicts(measured(found))[0].standing == "worse"
    assert told[0.5] <= 4
    assert told[1.5] >= 34


def test_points_of_the_same_numbers_count_once(rng):
    one, two = measured(correlated(rng, 0.8, 2))
    assert find_least_told([one, two, one, two]) == find_least_told([one, two]) > 0
    assert find_least_told([one, one]) == 0


def test_four_times_as_many_images_tell_half_as_much(rng):
    y = correlated(rng, 0.8)
    assert find_least_told(measured(y / 2)) == pytest.approx(find_least_told(measured(y)) / 2)


def test_what_differs_by_many_errors_is_told(rng):
    y = 1 + 0.01 * rng.normal(size=(3, G)) + np.array([0.0, 0.5, 0.1])[:, None]
    best, far, near = reach_verdicts(measured(y))
    assert (best.standing, far.standing, near.standing) == ("best", "worse", "worse")
    assert far.difference == pytest.approx(0.5, abs=0.02)
    assert far.error == pytest.approx((y[1] - y[0]).std(ddof=1) / G**0.5)
    assert str(far) == f"worse by {far.difference:.2g} ± {far.error:.2g}"
    assert (best.p, best.difference, best.error) == (1, 0, 0)
    turned = reach_verdicts(measured(-y), highest=True)
    assert [str(one) for one in turned] == [str(one) for one in (best, far, near)]
    assert turned[1].difference == pytest.approx(-far.difference)


def test_shared_noise_tells_apart_what_errors_of_each_do_not(rng):
    shared = rng.normal(size=G)
    y = np.stack([shared, shared + 0.1 + 0.01 * rng.normal(size=G)])
    assert [one.standing for one in reach_verdicts(measured(y))] == ["best", "worse"]
    y[1] = rng.permutation(y[1])
    assert {one.standing for one in reach_verdicts(measured(y))} == {"as good as the best"}


def test_the_same_numbers_up_to_rounding_are_as_good(rng):
    y = np.tile(3 + rng.normal(size=G), (2, 1))
    y[1] += 1e-13
    assert {str(one) for one in reach_verdicts(measured(y))} == {"as good as the best"}


def test_too_few_groups_tell_nothing(rng):
    few = [Estimate(0.0, (0.0, 0.1, -0.1)), Estimate(100.0, (100.0, 100.1, 99.8))]
    assert {one.standing for one in reach_verdicts(few)} == {"as good as the best"}
    assert reach_verdicts(few[:1])[0].standing == "best"


def test_a_stricter_level_calls_less(rng):
    y = np.stack([rng.normal(size=G), rng.normal(size=G) + 1.5])
    p = reach_verdicts(measured(y))[1].p
    for level, standing in ((p, "worse"), (p * 0.99, "as good as the best")):
        assert reach_verdicts(measured(y), level=level)[1].standing == standing


def test_every_pattern_of_signs_once():
    assert len(np.unique(list_signs(4), axis=0)) == 16
    assert (list_signs(4)[0] == 1).all()
    assert list_signs(20).shape == (4096, 20)
    assert (list_signs(20) == list_signs(20)).all()


def test_against_the_lowest_is_students_t(rng):
    y = rng.normal(size=(3, G))
    lowest = y.mean(1).argmin()
    gap = y - y[lowest]
    expected = np.where(np.arange(3) == lowest, 0, gap.mean(1) / (gap.std(1, ddof=1) + 1e-300))
    np.testing.assert_allclose(compare_with_lowest(y), expected * G**0.5, atol=1e-12)


def test_pairs_count_for_the_errors_alone_and_where_all_have_them(rng):
    y = rng.normal(size=(3, G))
    found = measured(y)
    paired = [replace(one, without_two=one.without) for one in found]
    assert [one.p for one in reach_verdicts(paired)] == [one.p for one in reach_verdicts(found)]
    assert [one.error for one in reach_verdicts(paired)] != [
        one.error for one in reach_verdicts(found)
    ]
    some = [*paired[:2], found[2]]
    assert [one.error for one in reach_verdicts(some)] == [
        one.error for one in reach_verdicts(found)
    ]
    np.testing.assert_allclose(measure_gaps(found).y, y)


def test_numbers_of_too_few_or_different_groups_are_refused():
    with pytest.raises(ValueError, match="expected two"):
        reach_verdicts([Estimate(1.0), Estimate(2.0)])
    with pytest.raises(ValueError, match="shape"):
        reach_verdicts([Estimate(1.0, (1.0, 2.0)), Estimate(1.0, (1.0, 2.0, 3.0))])
