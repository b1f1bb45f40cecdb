"""Mirrors cdm_cli/jobs/tune/teacher.py: one Brownian path, and a pupil that follows it."""

import itertools

import numpy as np
import pytest
import torch

from cdm_cli.diffusion.schedules import cosine
from cdm_cli.jobs.tune.teacher import (
    NoisePath,
    choose_teacher_times,
    find_nearest,
    move_onto,
    walk_path,
)
from cdm_cli.jobs.tune.ways import make_even_way
from tests.oracles import GaussianData, Impulses

SCHEDULE = cosine(200)
DATA = GaussianData(mean=0.2, std=0.3)
TIMES = choose_teacher_times(SCHEDULE)


@pytest.fixture
def path():
    """A path as an affine function of impulses: its covariances have no sampling error."""
    impulses = Impulses(len(TIMES))
    x = torch.zeros(len(TIMES) + 1, 1, 1, 1, dtype=torch.float64)
    return impulses, NoisePath.draw(SCHEDULE, TIMES, x, impulses.randn_like)


@pytest.mark.parametrize("T", [1, 5, 20, 4000])
def test_the_grid_has_both_ends(T):
    times = choose_teacher_times(cosine(T))
    assert (times[0], times[-1]) == (1, T)
    assert list(times) == sorted({*times})
    assert len(times) <= 97


def test_the_noise_of_a_start_and_of_each_step_is_normal_and_independent(path):
    impulses, path = path
    few = TIMES[::-9]
    noises = [path.start(few[0]), *(path.draw_step_noise(t, s) for t, s in itertools.pairwise(few))]
    for i, j in itertools.combinations_with_replacement(range(len(noises)), 2):
        expected = pytest.approx(float(i == j), abs=1e-9)
        assert impulses.covariance(noises[i], noises[j]) == expected


def test_a_step_takes_all_increments_that_it_steps_over(path):
    _, path = path
    t, middle, s = TIMES[60], TIMES[50], TIMES[20]
    snr = {at: float(path.snr[path.times.index(at)]) for at in (t, middle, s)}
    both = path.draw_step_noise(t, middle) * (snr[middle] - snr[t]) ** 0.5
    both = both + path.draw_step_noise(middle, s) * (snr[s] - snr[middle]) ** 0.5
    torch.testing.assert_close(path.draw_step_noise(t, s) * (snr[s] - snr[t]) ** 0.5, both)


def of(number):
    generator = torch.Generator().manual_seed(0)
    randn = lambda x: torch.randn(x.shape, generator=generator)  # noqa: E731
    return NoisePath.draw(SCHEDULE, TIMES, torch.zeros(number, 1, 2, 2), randn)


def test_more_steps_on_the_path_end_nearer_to_the_teacher():
    path = of(64)
    wanted = walk_path(SCHEDULE, DATA.eps_theta, make_even_way(TIMES, 1.0), path)
    apart = []
    for steps in (4, 12, 40):
        way = move_onto(
            TIMES, make_even_way(np.linspace(200, 1, steps).round().astype(int).tolist(), 1.0)
        )
        found = walk_path(SCHEDULE, DATA.eps_theta, way, path)
        apart.append(float((found - wanted).square().mean()))
    assert apart[0] > 2 * apart[1] > 4 * apart[2]
    other = walk_path(SCHEDULE, DATA.eps_theta, make_even_way(TIMES, 1.0), of(64))
    assert torch.equal(other, wanted)


def test_the_nearest_way_is_nearer_than_those_it_began_with():
    path, rng = of(32), np.random.default_rng(0)
    wanted = walk_path(SCHEDULE, DATA.eps_theta, make_even_way(TIMES, 1.0), path)

    def apart(way):
        found = float((walk_path(SCHEDULE, DATA.eps_theta, way, path) - wanted).square().mean())
        seen[way] = found
        return found

    seen = {}
    begin = [
        move_onto(TIMES, make_even_way((200, 150, 100, 50), 1.0)),
        move_onto(TIMES, make_even_way((60, 50, 40, 30), 1.0)),
    ]
    found = find_nearest(SCHEDULE, TIMES, begin, apart, 30, rng)
    assert seen[found] == min(seen.values()) < 0.7 * min(seen[way] for way in begin)
    assert {t for way in seen for t in way.times} <= {*TIMES}


def test_times_move_to_the_nearest_that_are_free():
    assert move_onto((1, 10, 20, 30), make_even_way((21, 20, 19), 1.0)).times == (20, 10, 1)
    assert move_onto((1, 10, 20, 30), make_even_way((2, 1), 1.0)).times == (10, 1)
