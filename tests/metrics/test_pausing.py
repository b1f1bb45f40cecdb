"""Mirrors cdm_cli/metrics/pausing.py: whom the rest of a budget is likely to beat."""

import numpy as np
import pytest

from cdm_cli.metrics.best import Contender
from cdm_cli.metrics.pausing import NORMAL, go_on, reckon_chance

LEVEL = 0.05


def standing(*ps, differences=None):
    """Return a round of points; the first is the lowest, each next one is higher."""
    above = differences or range(len(ps))
    return [Contender(float(d), 1.0, p, d == 0, p <= 0) for p, d in zip(ps, above, strict=True)]


def test_the_chance_is_that_of_a_mean_that_more_images_join():
    """z' = (z + sum of the new) / sqrt(rho), with a flat prior: drawn, beside the formula."""
    rng, z, ratio = np.random.default_rng(0), 1.2, 2.5
    theta = z + rng.normal(size=400_000)  # per image of the first round, whose error is 1
    more = theta * (ratio - 1) + rng.normal(size=len(theta)) * (ratio - 1) ** 0.5
    drawn = ((z + more) / ratio**0.5 > NORMAL.inv_cdf(1 - LEVEL)).mean()
    assert reckon_chance(1 - NORMAL.cdf(z), ratio, LEVEL) == pytest.approx(drawn, abs=3e-3)


def test_what_is_at_its_level_stays_there_by_a_coin_if_hardly_any_images_follow():
    assert reckon_chance(LEVEL, 1 + 1e-9, LEVEL) == pytest.approx(0.5, abs=1e-4)
    assert reckon_chance(0.2, 1 + 1e-9, LEVEL) == 0
    assert reckon_chance(0.01, 1 + 1e-9, LEVEL) == 1


def test_the_lowest_and_what_no_images_follow_are_not_beaten():
    assert reckon_chance(1.0, 9.0, LEVEL) == 0
    assert reckon_chance(0.01, 1.0, LEVEL) == 0


def test_the_rest_goes_to_points_that_it_is_likely_to_beat_and_to_the_two_lowest():
    found = standing(1.0, 0.9, 0.8, 0.8, 0.7, 0.8, 0.06, 0.07)
    assert go_on(found, [1] * 8, 100, 10**4, 400, LEVEL) == [0, 1, 6, 7]
    found = standing(1.0, 0.9, 0.06, 0.8, 0.8, differences=(0, 3, 4, 1, 2))
    assert go_on(found, [1] * 5, 100, 10**4, 300, LEVEL) == [0, 2, 3]


def test_how_many_share_it_makes_the_mean_number_that_is_beaten_the_largest():
    ps, paid, n = (1.0, 0.95, 0.05, 0.08, 0.15, 0.3, 0.5, 0.6), 700, 150
    means = [
        sum(reckon_chance(p, 1 + paid / (2 + count) / n, LEVEL) for p in ps[2 : 2 + count])
        for count in range(1, 7)
    ]
    most = 1 + int(np.argmax(means))
    assert 1 < most < 6
    assert go_on(standing(*ps), [1] * 8, n, 10**4, paid, LEVEL) == list(range(2 + most))


def test_beaten_points_get_nothing_and_dear_ones_count_what_they_cost():
    assert go_on(standing(1.0, 0.9, 0.0, 0.1), [1] * 4, 100, 10**4, 400, LEVEL) == [0, 1, 3]
    found = standing(1.0, 0.9, 0.06, 0.1)
    assert go_on(found, [1, 1, 1, 1], 100, 10**4, 400, LEVEL) == [0, 1, 2, 3]
    assert go_on(found, [1, 1, 1, 50], 100, 10**4, 400, LEVEL) == [0, 1, 2]


def test_nobody_is_paused_where_nothing_is_likely_or_no_images_follow():
    assert go_on(standing(1.0, 1.0, 1.0), [1] * 3, 100, 10**4, 300, LEVEL) == [0, 1, 2]
    assert go_on(standing(1.0, 0.9, 0.1, 0.2), [1] * 4, 100, 100, 300, LEVEL) == [0, 1, 2, 3]
    assert go_on(standing(1.0, 0.9), [1] * 2, 100, 10**4, 300, LEVEL) == [0, 1]
