"""Mirrors cdm_cli/metrics/pareto.py: the front of known numbers, and how often it is wrong."""

import numpy as np

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.pareto import find_front


def estimates(means, size=0.1, shared=1.0, seed=0):
    """Numbers of known means, whose leave-out values share most of their noise."""
    draw = np.random.default_rng(seed).normal
    common = draw(size=10) * shared
    found = []
    for mean in means:
        y = mean + common + draw(size=10) * size  # what each group says by itself
        found.append(Estimate(float(y.mean()), tuple((y.sum() - y) / 9)))
    return found


def on(costs, found):
    return [place.on_front for place in find_front(costs, found)]


def test_the_front_of_points_far_apart_is_that_of_their_numbers():
    costs, means = [8, 8, 25, 25, 100, 100], [9, 12, 5, 10, 5.5, 4]
    places = find_front(costs, estimates(means))
    assert [place.on_front for place in places] == [True, False, True, False, False, True]
    assert [place.against for place in places] == [0, 0, 2, 2, 5, 5]
    assert places[1].difference > 2.5
    assert places[1].difference > 10 * places[1].error


def test_a_cheaper_point_that_may_be_worse_beats_nobody():
    """Of 5 and 5.01, 0.1 apart by noise, both stay, whichever is cheaper."""
    assert on([1, 2], estimates([5.0, 5.01])) == [True, True]
    assert on([2, 1], estimates([5.0, 5.01])) == [True, True]


def test_a_dearer_point_beats_no_cheaper_one():
    assert on([1, 2], estimates([9.0, 1.0])) == [True, True]
    assert on([2, 1], estimates([9.0, 1.0])) == [False, True]


def test_equal_costs_are_one_family():
    found = estimates([5, 9, 5.01], seed=1)
    assert on([7, 7, 7], found) == [True, False, True]
    assert on([7], found[:1]) == [True]


def test_points_of_the_front_are_left_out_rarely():
    """All points are equal, so all are on the front: some is left out in at most 5 % of draws."""
    costs = [8, 8, 8, 25, 25, 25, 100, 100, 100]
    wrong = sum(not all(on(costs, estimates([5.0] * 9, seed=seed))) for seed in range(300))
    assert wrong <= 24  # 5 % and three of its standard deviations
