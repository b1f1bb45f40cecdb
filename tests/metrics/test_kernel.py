"""Mirrors cdm_cli/metrics/kernel.py."""

import numpy as np
import pytest
import torch

from cdm_cli.metrics.kernel import Discrepancy, estimate_kernel_distance


def by_hand(x, y):
    """The sums of the definition, one pair at a time."""
    D = len(x[0])

    def k(a, b):
        return (float(np.dot(a, b)) / D + 1) ** 3

    def inside(z):
        pairs = [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return sum(pairs) / len(pairs)

    return inside(x) + inside(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_the_definition(generator):
    x = torch.randn(7, 4, generator=generator)
    y = torch.randn(5, 4, generator=generator) + 1
    expected = by_hand(x.double().numpy(), y.double().numpy())
    assert Discrepancy(x, y).value() == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cleanfid_agrees_where_nothing_is_drawn_at_random(generator):
    from cleanfid.fid import kernel_distance as by_cleanfid

    x = torch.rand(60, 32, generator=generator, dtype=torch.float64)
    y = torch.rand(60, 32, generator=generator, dtype=torch.float64) + 0.1
    expected = by_cleanfid(x.numpy(), y.numpy(), num_subsets=3)
    assert estimate_kernel_distance(x, y)[0] == pytest.approx((expected, 0), rel=1e-10)


def test_equal_distributions_are_at_zero_within_the_spread(generator):
    x, y = torch.randn(2, 600, 16, generator=generator)
    kid = estimate_kernel_distance(x, y, subset_size=100, num_subsets=50)[0]
    assert abs(kid.mean) < 4 * kid.std / 5
    assert (
        estimate_kernel_distance(x, y + 1, subset_size=100, num_subsets=50)[0].mean > 10 * kid.std
    )


def test_order_of_the_file_changes_nothing(generator):
    x, y = torch.randn(2, 50, 8, generator=generator)
    ids = np.arange(50)
    other = np.random.default_rng(0).permutation(50)
    first = estimate_kernel_distance(x, y, ids=ids, subset_size=20, num_subsets=5)[0]
    again = estimate_kernel_distance(x[other], y, ids=ids[other], subset_size=20, num_subsets=5)[0]
    assert first == pytest.approx(again, rel=1e-12)
    assert estimate_kernel_distance(x, y, subset_size=20, num_subsets=5, seed=1)[0] != first


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="two samples"):
        estimate_kernel_distance(torch.zeros(1, 2), torch.zeros(9, 2))[0]


@pytest.mark.parametrize("num", [40, 60])
def test_without_some_groups_it_is_the_distance_of_the_others(generator, num):
    """Of the same subsets; one subset, of all, where there are as many samples as real images."""
    x, y = torch.randn(num, 3, generator=generator), torch.randn(40, 3, generator=generator)
    groups = np.arange(num) % 5
    score, found = estimate_kernel_distance(x, y, groups=groups, subset_size=40, num_subsets=3)
    assert score == estimate_kernel_distance(x, y, subset_size=40, num_subsets=3)[0]
    assert (found.value, len(found.without), len(found.without_two)) == (score.mean, 5, 5)
    if num == 40:
        for g in range(5):
            one, two = groups != g, ~np.isin(groups, (g, (g + 1) % 5))
            assert found.without[g] == pytest.approx(Discrepancy(x[one], y).value(), rel=1e-9)
            assert found.without_two[g] == pytest.approx(Discrepancy(x[two], y).value(), rel=1e-9)
    few, none = estimate_kernel_distance(x[:2], y, groups=groups[:2], num_subsets=2)
    assert (none.value, none.without) == (few.mean, ())
