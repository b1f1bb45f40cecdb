"""Mirrors cdm_cli/metrics/order.py."""

import numpy as np
import pytest

from cdm_cli.metrics.order import (
    choose_balanced,
    choose_by_class,
    deal_groups,
    deal_splits,
    hash_ids,
    shuffle,
)


def test_hash_is_fixed_for_ever():
    """These values decide which samples a published number used."""
    expected = [5095610196844313600, 9171199645645008479, 1685891443961195628]
    assert hash_ids(np.arange(3), 0).tolist() == expected


def test_order_of_samples_does_not_depend_on_order_of_file():
    ids = np.arange(1000)
    other = np.random.default_rng(0).permutation(ids)
    assert (ids[shuffle(ids, 5)] == other[shuffle(other, 5)]).all()
    assert not (ids[shuffle(ids, 5)] == ids[shuffle(ids, 6)]).any(where=ids < 20)


def test_splits_are_equal_and_hold_every_class():
    labels = np.repeat(np.arange(10), 100)
    splits = deal_splits(np.arange(1000), 10)
    assert (np.bincount(splits) == 100).all()
    assert np.histogram2d(labels, splits, bins=10)[0].min() >= 1
    assert np.ptp(np.bincount(deal_splits(np.arange(1003), 10))) <= 1


@pytest.mark.parametrize(
    "sizes", [[100] * 10, [1000, 7, 93, 1], [3] * 50, [5], [10, 10], [1] * 25, [0, 12, 0, 30]]
)
def test_groups_have_the_same_share_of_every_label(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    groups = deal_groups(np.arange(len(labels)), labels, 10)
    counts = np.histogram2d(labels, groups, bins=(np.arange(len(sizes) + 1), np.arange(11)))[0]
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(counts.sum(0)) <= 1


def test_groups_depend_on_seed_ids_and_labels_alone():
    rng = np.random.default_rng(2)
    ids, labels = rng.permutation(500)[:300], rng.integers(0, 7, 300)
    groups, other = deal_groups(ids, labels, 10, seed=4), rng.permutation(300)
    assert (deal_groups(ids[other], labels[other], 10, seed=4) == groups[other]).all()
    assert (deal_groups(ids, labels, 10, seed=5) != groups).any()
    assert (deal_groups(ids + 1, labels, 10, seed=4) != groups).any()


def test_which_group_an_image_is_in_is_fixed_for_ever():
    """Files keep what numbers are without each group; new points are compared with them."""
    groups = deal_groups(np.arange(14), np.arange(14) % 3, 4)
    assert groups.tolist() == [0, 3, 0, 1, 2, 2, 2, 1, 3, 3, 0, 1, 2, 1]


def test_labels_of_fewer_samples_than_groups_meet_in_groups_by_chance():
    """Dealt in turn, labels of five would fill groups 0 to 4 or 5 to 9, and errors be too small."""
    labels = np.arange(500) % 100
    groups = deal_groups(np.arange(500), labels, 10)
    assert len({tuple(np.sort(groups[labels == label])) for label in range(100)}) > 50


def test_balanced_choice_takes_equally_from_each_class():
    ids = np.arange(1000)
    labels = np.repeat(np.arange(10), 100)
    chosen = choose_balanced(ids, labels, 205)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen], minlength=10)
    assert sorted(counts.tolist()) == [20] * 5 + [21] * 5


def test_balanced_choice_of_small_classes_and_of_everything():
    labels = np.array([0] * 2 + [1] * 50)
    counts = np.bincount(labels[choose_balanced(np.arange(52), labels, 20)])
    assert counts.tolist() == [2, 18]
    assert (choose_balanced(np.arange(52), labels, 52) == np.arange(52)).all()


def test_balanced_choice_ignores_the_order_of_the_file():
    rng = np.random.default_rng(1)
    ids, labels = np.arange(300), rng.integers(0, 7, 300)
    other = rng.permutation(300)
    first = set(ids[choose_balanced(ids, labels, 50)])
    assert first == set(ids[other][choose_balanced(ids[other], labels[other], 50)])


def test_choose_by_class_takes_the_counts_asked_for_or_all_there_are():
    ids, labels = np.arange(100, 140), np.arange(40) % 4
    rows = choose_by_class(ids, labels, np.array([3, 0, 99, 1]), seed=1)
    assert np.bincount(labels[rows], minlength=4).tolist() == [3, 0, 10, 1]
    assert (np.diff(rows) > 0).all()
    fewer = choose_by_class(ids, labels, np.array([2, 0, 5, 1]), seed=1)
    assert set(fewer) < set(rows)
    other = choose_by_class(ids, labels, np.array([3, 0, 99, 1]), seed=2)
    assert set(other) != set(rows)
