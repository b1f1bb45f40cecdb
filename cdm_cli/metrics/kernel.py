"""The Kernel Inception Distance (Bińkowski et al. 2018), as clean-fid and torch-fidelity do it.

The squared maximum mean discrepancy under k(x, y) = (x·y / D + 1)³, without the diagonal
terms, averaged over subsets. Unlike FID it has no bias in the number of samples.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.jackknife import Estimate, MeanAndStd, estimate
from cdm_cli.metrics.order import shuffle

NUM_SUBSETS = 100
SUBSET_SIZE = 1000


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """Return k(x, y) = (x·y / D + 1)³, float64 [N, M], of features [N, D] and [M, D]."""
    base = (x.double() @ y.double().T / x.shape[1]).add_(1)
    return base * base * base


class Discrepancy:
    """The squared discrepancy of x [N, D] and y [M, D], and what it is without parts of x."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.within_x, self.across = polynomial(x, x), polynomial(x, y)
        within_y, M = polynomial(y, y), len(y)
        self.inside_y = (within_y.sum() - within_y.trace()) / (M * (M - 1))

    def value(self) -> float:
        """Return the unbiased squared discrepancy."""
        N = len(self.within_x)
        inside = (self.within_x.sum() - self.within_x.trace()) / (N * (N - 1))
        inside += self.inside_y
        return float(inside - 2 * self.across.mean())

    def estimate(self, groups: Tensor, G: int) -> Estimate:
        """Return it with what it is without some of G groups, of which each x has one, [N]."""
        Z = torch.nn.functional.one_hot(groups, G).double()
        n, own = Z.sum(0), Z.T @ self.within_x.diagonal()
        inside, across = Z.T @ self.within_x @ Z, Z.T @ self.across.mean(1)

        def without(out: tuple[int, ...]) -> float:
            left = torch.ones_like(n)
            left[list(out)] = 0
            N = left @ n
            inside_x = (left @ inside @ left - left @ own) / (N * (N - 1))
            return float(inside_x + self.inside_y - 2 * (left @ across) / N)

        return estimate(self.value(), without, n.long().tolist())


def estimate_kernel_distance(
    features: Tensor,
    features_ref: Tensor,
    *,
    ids: NDArray[np.int64] | None = None,
    ids_ref: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> tuple[MeanAndStd, Estimate]:
    """Return mean and standard deviation of the squared MMD over pairs of random subsets.

    And the mean as an Estimate: what it is without each of the groups [N] of the samples.
    features: [N, D]; features_ref: [M, D]; ids [N], ids_ref [M]: which samples a subset takes
    depends on these and the seed, not on the order of the file. With N = M = the size of a subset
    there is only one, and the standard deviation is 0. Raises ValueError for fewer than two
    samples or real images.
    """
    size = min(len(features), len(features_ref), subset_size)
    if size < 2:
        raise ValueError("a kernel distance needs two samples of each kind")
    rng = np.random.default_rng(seed)
    order, order_ref = (
        _shuffle(ids, len(features), seed),
        _shuffle(ids_ref, len(features_ref), seed),
    )
    if size == len(features) == len(features_ref):
        num_subsets = 1
    group_of = torch.zeros(len(features), dtype=torch.int64)
    if groups is not None:
        group_of = torch.from_numpy(groups)
    group_of, G = group_of.to(features.device), int(group_of.max()) + 1
    found: list[Estimate] = []
    for _ in range(num_subsets):
        mine = _draw_subset(rng, order, size, features.device)
        theirs = _draw_subset(rng, order_ref, size, features_ref.device)
        apart = Discrepancy(features[mine], features_ref[theirs])
        found.append(apart.estimate(group_of[mine], G))
    values = [one.value for one in found]
    return MeanAndStd(float(np.mean(values)), float(np.std(values))), _average(found)


def _average(found: list[Estimate]) -> Estimate:
    value = float(np.mean([one.value for one in found]))
    if not all(one.without for one in found):
        return Estimate(value)
    without = np.mean([one.without for one in found], axis=0)
    two = np.mean([one.without_two for one in found], axis=0)
    return Estimate(value, tuple(without.tolist()), tuple(two.tolist()))


def _shuffle(ids: NDArray[np.int64] | None, num: int, seed: int) -> NDArray[np.int64]:
    return shuffle(np.arange(num) if ids is None else ids, seed)


def _draw_subset(
    rng: np.random.Generator, order: NDArray[np.int64], size: int, device: torch.device
) -> Tensor:
    return torch.from_numpy(order[rng.permutation(len(order))[:size]]).to(device)
