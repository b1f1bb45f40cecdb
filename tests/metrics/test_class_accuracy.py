"""Mirrors cdm_cli/metrics/class_accuracy.py: counts that can be checked by hand."""

import numpy as np
import pytest
import torch

from cdm_cli.metrics.class_accuracy import (
    ClassAccuracy,
    compare_classes,
    list_tops,
    measure_gain_errors,
    measure_gains,
)


def one_by_one(K):
    """Logits whose order of classes is y, y + 1, …: row r has its class at place r."""
    return torch.stack([-torch.arange(K).roll(-r).float() for r in range(K)])


def test_top_1_and_top_5_of_eight_classes():
    accuracy = ClassAccuracy(8)
    accuracy.add(one_by_one(8), torch.zeros(8, dtype=torch.long))  # at places 0, 7, 6, …, 1
    assert accuracy.tested.tolist() == [8, 0, 0, 0, 0, 0, 0, 0]
    assert accuracy.share(1).mean == 1 / 8
    assert accuracy.share(5).mean == 5 / 8
    assert accuracy.share(5).std == pytest.approx((5 / 8 * 3 / 8 / 8) ** 0.5)


@pytest.mark.parametrize(("K", "top"), [(2, 2), (3, 3), (5, 5), (6, 5), (1000, 5)])
def test_top_k_is_capped_at_the_number_of_classes(K, top):
    assert list_tops(K) == (1, top)
    accuracy = ClassAccuracy(K)
    accuracy.add(torch.zeros(4, K), torch.tensor([0, 1, 1, 0]))
    if top == K:
        assert accuracy.share(top).mean == 1


def test_classes_are_counted_apart_and_over_calls():
    accuracy = ClassAccuracy(3)
    for logits, y in [([[3, 0, 1], [3, 0, 1]], [0, 1]), ([[0, 1, 3]], [1])]:
        accuracy.add(torch.tensor(logits).float(), torch.tensor(y))
    assert accuracy.tested.tolist() == [1, 2, 0]
    assert accuracy.right[1].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(accuracy.list_by_class(1), [1, 0, np.nan])


def test_counts_survive_being_added_up_and_taken_again():
    accuracy = ClassAccuracy(6)
    accuracy.add(torch.randn(50, 6), torch.arange(50) % 6)
    tested, *right = accuracy.tensor().long().tolist()
    again = ClassAccuracy.of(tested, right)
    assert again.share(1) == accuracy.share(1)
    assert again.share(5) == accuracy.share(5)


def test_gain_is_samples_minus_real_with_both_errors():
    mine = ClassAccuracy.of([4, 4, 0], [[1, 4, 0], [4, 4, 0]])
    theirs = ClassAccuracy.of([4, 4, 0], [[2, 3, 0], [4, 4, 0]])
    np.testing.assert_array_equal(measure_gains(mine, theirs), [-0.25, 0.25, np.nan])
    error = (0.25 * 0.75 / 4 + 0.5 * 0.5 / 4) ** 0.5
    assert measure_gain_errors(mine, theirs)[0] == pytest.approx(error)


def accuracies(tested, right):
    return ClassAccuracy.of(tested, [right, tested])


def test_verdicts_on_classes_are_those_of_fishers_test_and_holm():
    """By hand: 10 of 10 against 0 of 10 has p = 2 / C(20, 10); 10 against 4 has p = 0.0108."""
    real = accuracies([10, 10, 10, 0], [10, 4, 5, 0])
    mine = accuracies([10, 10, 10, 0], [0, 10, 5, 0])
    assert compare_classes(mine, real) == ["worse", "better", "not told apart", ""]
    assert compare_classes(mine, real, 0.0215)[1] == "not told apart"  # twice 0.0108, of two left
    assert compare_classes(mine, real, 0.0217)[1] == "better"
    assert compare_classes(real, real) == ["not told apart"] * 3 + [""]


def test_equal_classes_are_rarely_told_apart():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        pair = (accuracies([50] * 10, rng.binomial(50, 0.7, 10).tolist()) for _ in range(2))
        wrong += set(compare_classes(*pair)) != {"not told apart"}
    assert wrong <= 8
