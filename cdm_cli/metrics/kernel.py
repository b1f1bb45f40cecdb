"""The Kernel Inception Distance (Bińkowski et al. 2018), as clean-fid and torch-fidelity do it.

The squared maximum mean discrepancy under k(x, y) = (x·y / D + 1)³, without the diagonal
terms, averaged over subsets. Unlike FID it has no bias in the number of samples.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.inception_score import Score
from cdm_cli.metrics.order import shuffled

NUM_SUBSETS = 100
SUBSET_SIZE = 1000


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """Return k(x, y) = (x·y / D + 1)³, float64 [N, M], of features [N, D] and [M, D]."""
    base = (x.double() @ y.double().T / x.shape[1]).add_(1)
    return base * base * base


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared discrepancy of x [N, D] and y [M, D]."""
    N, M = len(x), len(y)
    within_x, within_y = polynomial(x, x), polynomial(y, y)
    inside = (within_x.sum() - within_x.trace()) / (N * (N - 1))
    inside += (within_y.sum() - within_y.trace()) / (M * (M - 1))
    return float(inside - 2 * polynomial(x, y).mean())


def kernel_distance(
    features: Tensor,
    features_ref: Tensor,
    *,
    ids: NDArray[np.int64] | None = None,
    ids_ref: NDArray[np.int64] | None = None,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Score:
    """Return mean and standard deviation of the squared MMD over pairs of random subsets.

    features: [N, D]; features_ref: [M, D]. Which samples a subset takes depends on the ids and
    the seed, not on the order of the file. With N = M = the size of a subset there is only
    one, and the standard deviation is 0. Raises ValueError for fewer than two samples.
    """
    size = min(len(features), len(features_ref), subset_size)
    if size < 2:
        raise ValueError("a kernel distance needs two samples of each kind")
    rng = np.random.default_rng(seed)
    order, order_ref = _order(ids, len(features), seed), _order(ids_ref, len(features_ref), seed)
    if size == len(features) == len(features_ref):
        num_subsets = 1
    values = [
        squared_mmd(
            features[_subset(rng, order, size, features.device)],
            features_ref[_subset(rng, order_ref, size, features_ref.device)],
        )
        for _ in range(num_subsets)
    ]
    return Score(float(np.mean(values)), float(np.std(values)))


def _order(ids: NDArray[np.int64] | None, num: int, seed: int) -> NDArray[np.int64]:
    return shuffled(np.arange(num) if ids is None else ids, seed)


def _subset(
    rng: np.random.Generator, order: NDArray[np.int64], size: int, device: torch.device
) -> Tensor:
    return torch.from_numpy(order[rng.permutation(len(order))[:size]]).to(device)
