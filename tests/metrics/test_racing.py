"""Mirrors cdm_cli/metrics/racing.py: who leaves when, what it costs, how often that is wrong."""

import numpy as np
import pytest

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import first_num, least_budget, levels, num_groups, race, shares

P = 6


def judge_of(noise, theta):
    """Return a judge of images whose number is theta [P], of each image with its noise [P, N]."""

    def judge(points, num):
        G = num_groups(num)
        x = theta[:, None] + noise[:, :num]
        sums = np.stack([x[:, g::G].sum(1) for g in range(G)], 1)
        counts = np.array([len(range(g, num, G)) for g in range(G)])
        left = (x.sum(1)[:, None] - sums) / (num - counts)
        return [Estimate(float(x[i].mean()), tuple(left[i].tolist())) for i in points]

    return judge


def correlated(rng, num, near=0.9):
    C = near ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
    return np.linalg.cholesky(C) @ rng.normal(size=(P, num))


def test_what_is_beaten_leaves_and_the_rest_takes_its_images():
    theta = np.array([0.0, 0.0, 5.0, 5.0, 5.0, 0.1])
    noise = correlated(np.random.default_rng(0), 4000)
    rounds = list(race([1] * P, 8 * 100 * P, 4000, judge_of(noise, theta)))
    assert [one.num for one in rounds[:2]] == [100, 100 + (1600 - 600) // 3]
    assert rounds[0].judged == tuple(range(P))
    assert rounds[0].left == rounds[1].judged == (0, 1, 5)
    assert [i for i, _ in rounds[0].beaten] == [2, 3, 4]
    for _, verdict in rounds[0].beaten:
        assert verdict.difference == pytest.approx(5, abs=4 * verdict.error)
    assert [one.spent for one in rounds] == [600, 1599, 3199, 4799]
    assert rounds[-1].num >= 100 + (4800 - 600) // 3
    assert {0, 1} <= set(rounds[-1].left)
    assert rounds[-1].lowest in (0, 1)


def test_the_shares_of_the_level_add_up_to_it():
    noise = correlated(np.random.default_rng(1), 4000)
    for budget in (50 * P, 200 * P, 1000 * P):
        ends = shares([1] * P, budget)
        assert ends[-1] == 1
        assert sum(levels(len(ends))) == pytest.approx(0.05)
        found = list(race([1] * P, budget, 4000, judge_of(noise, np.zeros(P))))
        assert len(found) == len(ends)
        assert sum(one.level for one in found) == pytest.approx(0.05)
    assert [len(shares([1] * P, n * P)) for n in (100, 149, 150, 300, 800, 10**6)] == [
        1, 1, 2, 3, 4, 4,
    ]  # fmt: skip


def test_nothing_is_judged_twice_and_the_last_look_has_what_is_left_of_the_level():
    """All images are used up before the budget is."""
    noise = correlated(np.random.default_rng(2), 150)
    found = list(race([1] * P, 10**6, 150, judge_of(noise, np.zeros(P))))
    assert [one.num for one in found] == [150]
    assert found[0].level == pytest.approx(0.05)
    found = list(race([1] * P, 600 * P, 350, judge_of(noise.repeat(3, 1), np.zeros(P))))
    assert [one.num for one in found] == [200, 350]
    assert sum(one.level for one in found) == pytest.approx(0.05)


def test_a_race_ends_where_one_is_left():
    noise = correlated(np.random.default_rng(3), 4000)
    found = list(race([1] * P, 800 * P, 4000, judge_of(noise, 9.0 * np.arange(P))))
    assert len(found) == 1
    assert found[0].left == (0,)


def test_points_cost_what_they_cost_and_images_come_in_steps():
    noise = correlated(np.random.default_rng(4), 4000)
    costs = [25, 25, 25, 8, 8, 8]
    theta = np.array([9.0, 9.0, 0.0, 9.0, 9.0, 0.0])
    found = list(race(costs, 400 * sum(costs), 4000, judge_of(noise, theta), step=32))
    assert [one.num for one in found] == [128, 544, 928]
    assert found[0].spent == 128 * 99
    assert found[1].spent == 128 * 99 + (544 - 128) * 33
    assert found[-1].spent <= 400 * sum(costs)
    assert first_num(costs, 400 * sum(costs), 4000, 32) == 128
    assert first_num(costs, 31 * sum(costs), 4000, 32) == 0
    assert least_budget(costs, 20, 4000, 32) == 32 * sum(costs)
    assert first_num(costs, least_budget(costs, 20, 4000, 32), 4000, 32) == 32
    assert first_num(costs, least_budget(costs, 20, 25, 32), 25, 32) == 25


@pytest.mark.parametrize("near", [0.0, 0.95])
def test_each_of_equal_points_leaves_one_race_of_twenty(near):
    """18 of 360 are expected at most; they come together, so 36 do with one seed in a hundred."""
    rng, gone = np.random.default_rng(5), 0
    for _ in range(60):
        judge = judge_of(correlated(rng, 400, near), np.ones(P))
        gone += P - len(list(race([1] * P, 400 * P, 400, judge))[-1].left)
    assert gone <= 36


def test_the_best_stays_where_others_differ():
    """Neither of two equal ones leaves, while those that are worse do."""
    rng, theta, lost, gone = np.random.default_rng(6), 0.6 * np.arange(P) - 0.6, 0, 0
    theta[0] = theta[1]
    for _ in range(30):
        last = list(race([1] * P, 400 * P, 1000, judge_of(correlated(rng, 1000, 0.5), theta)))[-1]
        lost += not {0, 1} <= set(last.left)
        gone += P - len(last.left)
    assert lost <= 5
    assert gone > 30 * 3
