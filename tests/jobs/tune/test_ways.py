"""Mirrors cdm_cli/jobs/tune/ways.py: whatever is asked, times decrease within 1..T."""

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from cdm_cli.diffusion.schedules import cosine, linear, trailing_times
from cdm_cli.jobs.tune.ways import (
    Shape,
    Way,
    find_times,
    make_even_way,
    place_times,
    shape_times,
    vary,
)

SCHEDULES = {"cosine": cosine(4000), "linear": linear(1000), "short": cosine(20)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def decrease(times, schedule):
    return all(a > b for a, b in pairwise(times)) and times[0] <= schedule.T and times[-1] >= 1


@each_schedule
def test_the_times_at_places_are_the_nearest(schedule):
    table = place_times(schedule)
    for times in [(schedule.T, 7, 1), (15, 14, 13), (3,)]:
        assert find_times(schedule, table[np.array(times) - 1]) == times
    crowded = find_times(schedule, np.full(6, table[-1]))
    assert decrease(crowded, schedule)
    assert len(crowded) == 6
    assert decrease(find_times(schedule, np.full(6, 99.0)), schedule)


@each_schedule
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("shape", get_args(Shape))
@pytest.mark.parametrize("first", [1.0, 0.5])
def test_shapes_begin_at_their_first_time_and_decrease(schedule, steps, shape, first):
    times = shape_times(schedule.T, steps, first, shape)
    assert len(times) == steps
    assert decrease(times, schedule)
    assert times[0] == max(first * schedule.T, steps)


def test_shapes_as_published():
    evenly = tuple(reversed(trailing_times(4000, 16).tolist()))
    assert shape_times(4000, 16, 1.0, "even") == evenly
    assert shape_times(4000, 4, 1.0, "square") == (4000, 2250, 1000, 250)
    assert shape_times(4000, 6, 1.0, "sine") == (4000, 3733, 3000, 2000, 1000, 268)


@each_schedule
def test_what_is_varied_is_a_way_again_and_a_shift_of_nothing_changes_nothing(schedule):
    rng = np.random.default_rng(0)
    way = make_even_way((17, 12, 6, 2), 0.7)
    assert vary(way, schedule, np.zeros(8)) == way
    for _ in range(30):
        found = vary(way, schedule, rng.normal(size=8))
        assert decrease(found.times, schedule)
        assert len(found.times) == len(found.stochasticity) == 4
        assert all(0 <= k <= 1 for k in found.stochasticity)
        assert found.sampler == way.sampler


def test_a_shift_of_one_end_leaves_the_other():
    way = Way((3000, 2000, 1000, 200), (0.5, 0.5, 0.5, 0.5), "ddim")
    found = vary(way, cosine(4000), np.array([0.3, 0, 0, 0, 0, 0, 0.4, 0]))
    assert found.times[0] < 3000  # it lies higher, so t is lower
    assert found.times[-1] == 200
    assert found.stochasticity[0] == 0.5
    assert found.stochasticity[-1] == pytest.approx(0.9)
    assert vary(make_even_way((9,), 1.0), cosine(4000), np.zeros(8)).times == (9,)
