"""Mirrors cdm_cli/metrics/racing.py: who is beaten when, what it costs, how often that is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import (
    BEFORE,
    NOW,
    RacePlan,
    count_first,
    count_groups,
    find_least_budget,
    plan_rounds,
    race,
)

P = 6


def judge_of(noise, theta):
    """Return a judge of images whose number is theta [P], of each image with its noise [P, N]."""

    def judge(points, num):
        G = count_groups(num)
        x = theta[:, None] + noise[:, :num]
        sums = np.stack([x[:, g::G].sum(1) for g in range(G)], 1)
        counts = np.array([len(range(g, num, G)) for g in range(G)])
        left = (x.sum(1)[:, None] - sums) / (num - counts)
        return [Estimate(float(x[i].mean()), tuple(left[i].tolist())) for i in points]

    return judge


def correlated(rng, num, near=0.9):
    C = near ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
    return np.linalg.cholesky(C) @ rng.normal(size=(P, num))


def test_an_older_race_shares_the_images_of_beaten_points_among_all_others():
    theta = np.array([0.0, 0.0, 5.0, 5.0, 5.0, 0.1])
    noise = correlated(np.random.default_rng(0), 4000)
    budget = 8 * 100 * P
    plan = plan_rounds([1] * P, budget, way=BEFORE)
    rounds = list(race([1] * P, budget, 4000, judge_of(noise, theta), plan=plan))
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
    assert not any(one.paused or one.waiting for one in rounds)


def test_from_half_of_the_budget_on_points_are_paused_that_it_is_not_likely_to_beat():
    """Those that are far behind go on, and one that is nearly equal waits: it may be the best."""
    theta = np.array([0.0, 0.0, 0.02, 0.12, 0.12, 0.0])
    noise = correlated(np.random.default_rng(3), 4000)
    first, second, *others, last = race([1] * P, 400 * P, 4000, judge_of(noise, theta))
    assert (first.num, first.paused, first.beaten) == (100, (), ())
    assert (second.num, second.paused, second.beaten) == (200, (2,), ())
    assert second.left == first.judged == tuple(range(P))
    assert second.racing == others[0].judged == (0, 1, 3, 4, 5)
    assert others[0].num == 200 + (0.7 - 0.5) * 400 * P / 5
    assert others[0].left == (0, 1, 2, 5)
    assert last.judged == others[0].racing == (0, 1, 5)
    assert last.num == others[0].num + (1 - 0.7) * 400 * P / 3
    assert last.waiting == others[0].waiting == (2,)
    assert last.left == (0, 1, 2, 5)
    assert (last.spent, last.paused) == (400 * P, ())


def test_paused_points_race_again_where_all_others_are_beaten():
    """The lowest point is far below all others once one is paused, which then has to catch up."""
    near, far = np.array([0.0, 0.0, 0.02, 0.12, 0.12, 0.0]), np.array([-5.0, 0, 0, 0, 0, 0])
    noise = correlated(np.random.default_rng(3), 4000)
    before, after = judge_of(noise, near), judge_of(noise, far)
    rounds = list(
        race([1] * P, 400 * P, 4000, lambda some, num: (before if num <= 200 else after)(some, num))
    )
    assert [one.paused for one in rounds] == [(), (2,), (), ()]
    assert [i for i, _ in rounds[2].beaten] == [1, 3, 4, 5]
    assert rounds[2].left == rounds[3].judged == (0, 2)
    assert rounds[3].waiting == ()
    new = rounds[3].num - rounds[2].num
    assert rounds[3].spent - rounds[2].spent == 2 * new + rounds[2].num - rounds[1].num
    assert rounds[3].spent <= 0.85 * 400 * P < rounds[3].spent + 2
    assert rounds[3].left == (0,)


@pytest.mark.parametrize("wakes", [True, False])
@pytest.mark.parametrize(("num", "spent"), [(450, 1988), (500, 2088)])
def test_paused_points_race_again_where_the_others_get_all_images(wakes, num, spent):
    """In a round before the last, and in the last; an earlier version left them their images."""
    near, far = np.array([0.0, 0.0, 0.02, 0.12, 0.12, 0.0]), np.array([0.0, 0, 0.02, 5, 5, 5])
    noise, plan = correlated(np.random.default_rng(3), 4000), plan_rounds([1] * P, 400 * P)
    before, after = judge_of(noise, near), judge_of(noise, far)

    def judge(some, num):
        return (before if num <= 200 else after)(some, num)

    plan = replace(plan, wakes=wakes)
    rounds = list(race([1] * P, 400 * P, num, judge, plan=plan))
    assert (rounds[1].paused, rounds[-1].num) == ((2,), num)
    assert rounds[-1].judged == ((0, 1, 2) if wakes else (0, 1))
    assert rounds[-1].waiting == (() if wakes else (2,))
    assert rounds[-1].spent == spent + (num - 200) * wakes <= 400 * P
    assert sum(one.level for one in rounds) == pytest.approx(0.05)


@pytest.mark.parametrize("wakes", [True, False])
def test_as_many_paused_points_race_again_as_the_budget_pays_for(monkeypatch, wakes):
    """One of two that are paused costs too much to catch up; then the other one waited, too."""

    def go_on(found, *_):
        return [0, 1, 3, 4] if len(found) == P else range(len(found))

    monkeypatch.setattr("cdm_cli.metrics.racing.go_on", go_on)
    noise = correlated(np.random.default_rng(3), 4000)
    before, after = judge_of(noise, np.zeros(P)), judge_of(noise, np.array([-5.0, 0, 0, 0, 0, 0]))

    def judge(some, num):
        return (before if num <= 200 else after)(some, num)

    costs = [1, 1, 1, 1, 1, 12]
    plan = RacePlan((0.25, 0.5, 0.7, 1.0), (0.01, 0.005, 0.005, 0.03), 0.5, wakes)
    rounds = list(race(costs, 400 * sum(costs), 4000, judge, plan=plan))
    assert rounds[1].paused == (2, 5)
    assert rounds[2].left == (0, 2, 5)
    assert len(rounds) == 3 + wakes
    assert rounds[-1].left == ((0, 5) if wakes else (0, 2, 5))
    assert rounds[-1].waiting == ((5,) if wakes else (2, 5))


def test_the_shares_of_the_level_add_up_to_it():
    noise = correlated(np.random.default_rng(1), 4000)
    for budget in (50 * P, 160 * P, 1000 * P):
        for way in (NOW, BEFORE):
            plan = plan_rounds([1] * P, budget, way=way)
            assert plan.ends[-1] == 1
            assert sum(plan.levels) == pytest.approx(0.05)
            found = list(race([1] * P, budget, 4000, judge_of(noise, np.zeros(P)), plan=plan))
            assert len(found) == len(plan.ends)
            assert sum(one.level for one in found) == pytest.approx(0.05)
    nums = (100, 117, 118, 142, 143, 199, 200, 399, 400, 10**6)
    rounds = [len(plan_rounds([1] * P, n * P).ends) for n in nums]
    assert rounds == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert plan_rounds([1], 200).levels == pytest.approx((0.0015, 0.005, 0.0075, 0.036))
    older = [len(plan_rounds([1] * P, n * P, way=BEFORE).ends) for n in (149, 150, 300, 800)]
    assert older == [1, 2, 3, 4]


def test_nothing_is_judged_twice_and_the_last_look_has_what_is_left_of_the_level():
    """All images are used up before the budget is."""
    noise = correlated(np.random.default_rng(2), 150)
    found = list(race([1] * P, 10**6, 150, judge_of(noise, np.zeros(P))))
    assert [one.num for one in found] == [150]
    assert found[0].level == pytest.approx(0.05)
    found = list(race([1] * P, 600 * P, 350, judge_of(noise.repeat(3, 1), np.zeros(P))))
    assert [one.num for one in found][-1] == 350
    assert sum(one.level for one in found) == pytest.approx(0.05)


def test_a_race_ends_where_one_is_left():
    noise = correlated(np.random.default_rng(3), 4000)
    found = list(race([1] * P, 800 * P, 4000, judge_of(noise, 9.0 * np.arange(P))))
    assert [one.num for one in found] == [200]
    assert found[-1].left == (0,)


def test_points_cost_what_they_cost_and_images_come_in_steps():
    noise = correlated(np.random.default_rng(4), 4000)
    costs = [25, 25, 25, 8, 8, 8]
    theta = np.array([9.0, 9.0, 0.0, 9.0, 9.0, 0.0])
    found = list(race(costs, 400 * sum(costs), 4000, judge_of(noise, theta), step=32))
    assert [one.num for one in found] == [96, 384, 640, 800, 992]
    assert [one.spent for one in found[:2]] == [96 * 99, 96 * 99 + 288 * 33]
    assert found[-1].spent <= 400 * sum(costs)
    assert count_first(costs, 400 * sum(costs), 4000, 32) == 96
    assert count_first(costs, 31 * sum(costs), 4000, 32) == 0
    assert find_least_budget(costs, 20, 4000, 32) == 32 * sum(costs)
    assert count_first(costs, find_least_budget(costs, 20, 4000, 32), 4000, 32) == 32
    assert count_first(costs, find_least_budget(costs, 20, 25, 32), 25, 32) == 25


@pytest.mark.parametrize("step", [33, 128, 400, 1000])
def test_a_budget_of_one_step_of_images_is_a_race_of_one_round(step):
    """A step of a store of a thousand classes is a thousand images: early rounds have none."""
    costs, num = [10, 20], 5000
    noise = correlated(np.random.default_rng(6), num)[:2]
    least = find_least_budget(costs, 20, num, step)
    rounds = list(race(costs, least, num, judge_of(noise, np.zeros(2)), step=step))
    assert [(one.num, one.level) for one in rounds] == [(step, pytest.approx(0.05))]
    assert count_first(costs, least, num, step) == step
    assert count_first(costs, least - 1, num, step) == 0
    assert count_first(costs, 8 * least, num, step) == next(
        one.num for one in race(costs, 8 * least, num, judge_of(noise, np.zeros(2)), step=step)
    )


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
