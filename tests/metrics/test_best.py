"""Mirrors cdm_cli/metrics/best.py: which points may be the best, and how often the best is lost."""

import numpy as np
import pytest

from cdm_cli.metrics.best import find_levels, rank_contenders
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.verdicts import list_signs, reach_verdicts


def estimates(y):
    """Return numbers whose pseudo-values are y [P, G]."""
    G = y.shape[1]
    mean = y.mean(1, keepdims=True)
    left = mean - (y - mean) / (G - 1)
    return [Estimate(float(m), tuple(one)) for m, one in zip(mean[:, 0], left, strict=True)]


def test_levels_are_those_of_all_signs_counted_by_hand():
    y = np.random.default_rng(0).normal(size=(4, 6)) + np.array([0, 0.5, 1, 3])[:, None]
    found = find_levels(y)

    def largest(one, i):
        gaps = [one[i] - one[j] for j in range(4) if j != i]
        return max(gap.mean() / (gap.std(ddof=1) / 6**0.5) for gap in gaps)

    for i in range(4):
        if i == y.mean(1).argmin():
            assert found[i] == 1
            continue
        null = [largest(sign * y, i) for sign in list_signs(6)]
        assert found[i] == np.mean([one >= largest(y, i) * (1 - 1e-9) for one in null])


def test_a_point_that_is_far_is_beaten_by_how_much_it_is_higher():
    y = np.random.default_rng(1).normal(size=(5, 12))
    y[3] += 9
    found = rank_contenders(estimates(y))
    assert [one.beaten for one in found] == [False, False, False, True, False]
    lowest = next(i for i, one in enumerate(found) if one.lowest)
    assert lowest == y.mean(1).argmin()
    assert found[lowest].p == 1
    assert found[3].difference == pytest.approx(y[3].mean() - y[lowest].mean())
    assert found[3].error == pytest.approx((y[3] - y[lowest]).std(ddof=1) / 12**0.5)


def test_rounding_beats_nobody_and_neither_does_a_point_beside_itself():
    y = np.repeat(np.random.default_rng(2).normal(size=(1, 10)) + 1, 3, 0)
    y[1] *= 1 + 1e-12
    y[2] += 5
    assert [one.beaten for one in rank_contenders(estimates(y))] == [False, False, True]


def test_the_best_is_lost_in_one_family_of_twenty_and_more_leave_than_by_verdicts():
    """Seven equal points: each one is a best one, and leaves with a probability of 5 %."""
    rng, lost, ours, theirs = np.random.default_rng(3), 0, 0, 0
    for _ in range(150):
        y = rng.normal(size=(7, 10)) + rng.normal(size=10)
        lost += rank_contenders(estimates(y))[0].beaten
        y += 0.5 * np.arange(7)[:, None]
        ours += sum(one.beaten for one in rank_contenders(estimates(y)))
        theirs += sum(one.standing == "worse" for one in reach_verdicts(estimates(y)))
    assert lost <= 15
    assert ours > theirs > 150


def test_numbers_of_different_groups_are_refused():
    with pytest.raises(ValueError, match="shape"):
        rank_contenders([Estimate(1.0, (1.0, 2.0)), Estimate(1.0, (1.0, 2.0, 3.0))])
