"""Mirrors cdm_cli/metrics/order.py."""

import numpy as np

from cdm_cli.metrics.order import balanced_choice, choice_by_class, hashed, shuffled, split_of


def test_hash_is_fixed_for_ever():
    """These values decide which samples a published number used."""
    expected = [5095610196844313600, 9171199645645008479, 1685891443961195628]
    assert hashed(np.arange(3), 0).tolist() == expected


def test_order_of_samples_does_not_depend_on_order_of_file():
    ids = np.arange(1000)
    other = np.random.default_rng(0).permutation(ids)
    assert (ids[shuffled(ids, 5)] == other[shuffled(other, 5)]).all()
    assert not (ids[shuffled(ids, 5)] == ids[shuffled(ids, 6)]).any(where=ids < 20)


def test_splits_are_equal_and_hold_every_class():
    labels = np.repeat(np.arange(10), 100)
    splits = split_of(np.arange(1000), 10)
    assert (np.bincount(splits) == 100).all()
    assert np.histogram2d(labels, splits, bins=10)[0].min() >= 1
    assert np.ptp(np.bincount(split_of(np.arange(1003), 10))) <= 1


def test_balanced_choice_takes_equally_from_each_class():
    ids = np.arange(1000)
    labels = np.repeat(np.arange(10), 100)
    chosen = balanced_choice(ids, labels, 205)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen], minlength=10)
    assert sorted(counts.tolist()) == [20] * 5 + [21] * 5


def test_balanced_choice_of_small_classes_and_of_everything():
    labels = np.array([0] * 2 + [1] * 50)
    counts = np.bincount(labels[balanced_choice(np.arange(52), labels, 20)])
    assert counts.tolist() == [2, 18]
    assert (balanced_choice(np.arange(52), labels, 52) == np.arange(52)).all()


def test_balanced_choice_ignores_the_order_of_the_file():
    rng = np.random.default_rng(1)
    ids, labels = np.arange(300), rng.integers(0, 7, 300)
    other = rng.permutation(300)
    first = set(ids[balanced_choice(ids, labels, 50)])
    assert first == set(ids[other][balanced_choice(ids[other], labels[other], 50)])


def test_choice_by_class_takes_the_counts_asked_for_or_all_there_are():
    ids, labels = np.arange(100, 140), np.arange(40) % 4
    rows = choice_by_class(ids, labels, np.array([3, 0, 99, 1]), seed=1)
    assert np.bincount(labels[rows], minlength=4).tolist() == [3, 0, 10, 1]
    assert (np.diff(rows) > 0).all()
    fewer = choice_by_class(ids, labels, np.array([2, 0, 5, 1]), seed=1)
    assert set(fewer) < set(rows)
    other = choice_by_class(ids, labels, np.array([3, 0, 99, 1]), seed=2)
    assert set(other) != set(rows)
