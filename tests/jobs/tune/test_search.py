"""Mirrors cdm_cli/jobs/tune/search.py: where schedules are looked for, and that it finds them."""

import math

import pytest
import torch

from cdm_cli.diffusion.schedules import linear
from cdm_cli.jobs.tune.search import (
    LEAST_BETA,
    MOST_SIGNAL,
    Space,
    halton,
    propose,
    radical_inverse,
    solve_last_beta,
)

BOTH = ("small", "large")
CORNERS = [(u, v, w) for u in (0.0, 1.0) for v in (0.0, 1.0) for w in (0, 1)]


def space(steps=4, variances=BOTH):
    return Space(steps, 4e-5, variances)


@pytest.mark.parametrize("steps", [1, 2, 4, 16, 100])
@pytest.mark.parametrize("place", [*CORNERS, (0.3, 0.6, 0)])
def test_every_place_is_a_linear_schedule_within_its_bounds(steps, place):
    found = space(steps).make_candidate(place, "spread")
    alpha_bar = torch.tensor((1.0, *found.alpha_bar), dtype=torch.float64)
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    torch.testing.assert_close(
        beta, torch.linspace(found.beta_1, found.beta_T, steps, dtype=torch.float64)
    )
    assert 0 < found.beta_1 <= found.beta_T < 1
    assert 0.999 * 4e-5 <= found.alpha_bar[-1] <= 1.001 * MOST_SIGNAL
    assert found.beta_1 >= 0.999 * LEAST_BETA
    assert found.variance == BOTH[place[2]]


def test_the_ends_of_the_box():
    assert space().make_candidate((0.0, 0.0, 0), "spread").beta_1 == pytest.approx(LEAST_BETA)
    constant = space().make_candidate((1.0, 1.0, 0), "spread")
    assert constant.beta_1 == pytest.approx(constant.beta_T) == pytest.approx(1 - 0.3**0.25)
    assert space(1).make_candidate((0.2, 1.0, 0), "spread").alpha_bar == pytest.approx((0.3,))


@pytest.mark.parametrize(("steps", "beta_1", "beta_T"), [(4, 0.01, 0.9), (100, 1e-4, 0.1)])
def test_last_beta_is_the_one_that_ends_there(steps, beta_1, beta_T):
    end = float(linear(steps, beta_1, beta_T).alpha_bar[-1])
    assert solve_last_beta(steps, beta_1, math.log(end)) == pytest.approx(beta_T, rel=1e-9)


def test_halton():
    assert [radical_inverse(n, 2) for n in range(1, 5)] == [0.5, 0.25, 0.75, 0.125]
    assert radical_inverse(5, 3) == pytest.approx(2 / 3 + 1 / 9)
    points = [halton(n, seed=3) for n in range(1, 9)]
    for axis, cells in ((0, 8), (1, 3)):
        assert len({int(point[axis] * cells + shift) for point in points for shift in (0,)}) > 2
    shifted = [(x - points[0][0]) % 1 for x, _ in points]
    assert sorted(round(8 * x) % 8 for x in shifted) == list(range(8))
    assert halton(1, seed=3) == points[0] != halton(1, seed=4)


def searched(space, score, trials=16, seed=0):
    tried = []
    for number in range(1, trials + 1):
        scored = [(found.place, score(found)) for found in tried]
        tried.append(propose(space, number, trials, scored, seed))
    return tried


def bowl(candidate, beta_1=4e-3, alpha_bar_T=2e-3):
    """A score whose minimum, 0, is at one schedule of the large variance."""
    far = math.log(candidate.beta_1 / beta_1) ** 2
    far += math.log(candidate.alpha_bar[-1] / alpha_bar_T) ** 2
    return far + (0.5 if candidate.variance == "small" else 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_refinement_nears_a_known_optimum(seed):
    tried = searched(space(), bowl, trials=24, seed=seed)
    spread = [bowl(found) for found in tried if found.origin == "spread"]
    assert len(spread) == 12
    best = min(tried, key=bowl)
    assert best.variance == "large"
    assert bowl(best) < 0.4
    assert bowl(best) < min(spread) - 0.4


def test_the_spread_half_covers_the_box():
    tried = searched(space(), bowl, trials=32)[:16]
    for axis in (0, 1):
        places = [found.place[axis] for found in tried]
        assert min(places) < 0.15
        assert max(places) > 0.85
    assert {found.variance for found in tried} == {"small"}


def test_the_other_variance_is_tried_at_the_best_itself():
    tried = searched(space(), bowl, trials=9)
    before, first = tried[:5], tried[5]
    best = min(before, key=bowl)
    assert first.place == (*best.place[:2], 1)
    assert first.alpha_bar == best.alpha_bar
    places = [found.place for found in tried]
    assert len(set(places)) == len(places)


def test_boxes_shrink_around_the_best():
    tried = searched(space(variances=("small",)), bowl, trials=40)
    for number in (21, 30, 40):
        best = min(tried[: number - 1], key=bowl)
        half = 0.25 * (0.03 / 0.25) ** ((number - 21) / 19)
        for axis in (0, 1):
            assert abs(tried[number - 1].place[axis] - best.place[axis]) <= half + 1e-12


def test_one_variance_or_one_step_leaves_no_choice():
    assert {found.variance for found in searched(space(variances=("large",)), bowl)} == {"large"}
    assert {found.variance for found in searched(space(1), bowl)} == {"small"}


def test_trials_follow_from_seed_and_scores_alone():
    assert searched(space(), bowl, seed=1) == searched(space(), bowl, seed=1)
    assert searched(space(), bowl, seed=1) != searched(space(), bowl, seed=2)
