"""What nearest neighbours tell: precision and recall, density and coverage, memorisation.

Features are [N, D] (samples) and [M, D] (real images). Distances are Euclidean, computed in
float64 a block of rows at a time, so that memory stays flat in N * M.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cdm_cli.metrics.jackknife import MeanAndStd

ROWS = 512
ROUNDING = 1e-6  # a distance of less than this share of the features is 0


class PRDC(NamedTuple):
    """Four scores; their uncertainty is the standard error over samples (or real images).

    alike: real images that equal their k_density nearest ones. Their neighbourhood has no inside,
    so that no sample counts for their density or coverage, not even an equal one.
    """

    precision: MeanAndStd
    recall: MeanAndStd
    density: MeanAndStd
    coverage: MeanAndStd
    alike: int


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return Euclidean distances, float64 [N, M], of x [N, D] and y [M, D].

    What is left of a difference by rounding alone is 0, so that equal features are equal.
    """
    x, y = x.double(), y.double()
    whole = (y * y).sum(1)
    squares = (x * x).sum(1)[:, None] + whole[None] - 2 * (x @ y.T)
    return squares.masked_fill_(squares <= ROUNDING**2 * whole, 0).sqrt_()


def _measure_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of x, their distances to all of y)."""
    y = y.double()
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        yield rows, distances(x[rows], y)


def radii(x: Tensor, ks: tuple[int, ...]) -> Tensor:
    """Return the distance of each x [N, D] to its k-th nearest other one, [len(ks), N]."""
    found = torch.empty(len(ks), len(x), dtype=torch.float64, device=x.device)
    for rows, block in _measure_blocks(x, x):
        block[torch.arange(len(block)), torch.arange(rows.start, rows.stop)] = 0
        nearest = block.topk(max(ks) + 1, largest=False).values  # the first is x itself
        found[:, rows] = nearest[:, list(ks)].T
    return found


def prdc(features: Tensor, features_ref: Tensor, *, k: int = 3, k_density: int = 5) -> PRDC:
    """Return precision, recall (Kynkäänniemi et al. 2019) and density, coverage (Naeem 2020).

    The k-neighbourhood of an image is the ball that reaches to its k-th nearest one of its kind.
    precision: the share of samples inside that of a real image; recall: the share of real images
    inside that of a sample. density: in how many neighbourhoods of real images a sample is, over
    k_density; coverage: the share of real images whose neighbourhood holds a sample, both with
    k_density and without the edge. features: [N, D]; features_ref: [M, D].
    Raises ValueError unless both sides have more than k and k_density members.
    """
    if min(len(features), len(features_ref)) <= max(k, k_density):
        raise ValueError(f"{max(k, k_density)} neighbours need more samples and real images")
    own, own_density = radii(features_ref, (k, k_density))
    (theirs,) = radii(features, (k,))
    inside = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    density = torch.zeros_like(inside)
    recalled = torch.zeros(len(features_ref), dtype=torch.bool, device=features.device)
    nearest = torch.full_like(own, torch.inf)
    for rows, block in _measure_blocks(features, features_ref):
        inside[rows] = (block <= own).any(1).double()
        density[rows] = (block < own_density).sum(1).double() / k_density
        recalled |= (block <= theirs[rows, None]).any(0)
        nearest = torch.minimum(nearest, block.amin(0))
    covered = (nearest < own_density).double()
    scores = map(_average, (inside, recalled.double(), density, covered))
    return PRDC(*scores, alike=int((own_density == 0).sum()))


def _average(values: Tensor) -> MeanAndStd:
    return MeanAndStd(float(values.mean()), float(values.std() / len(values) ** 0.5))


class Nearest:
    """Streaming search: for each query [Q, D] the k nearest of all features that were added.

    distances: float64 [Q, k], ascending, and ids: int64 [Q, k] of these; fewer than k columns
    until k were added.
    """

    def __init__(self, queries: Tensor, k: int) -> None:
        self.queries, self.k = queries, k
        self.distances = torch.zeros(len(queries), 0, dtype=torch.float64, device=queries.device)
        self.ids = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)

    def add(self, features: Tensor, ids: Tensor) -> None:
        """Add features [B, D] with their ids [B]."""
        found = distances(self.queries, features.to(self.queries.device))
        names = ids.to(self.ids.device).expand(len(self.queries), -1)
        both = torch.cat([self.distances, found], 1)
        self.distances, places = both.topk(min(self.k, both.shape[1]), largest=False)
        self.ids = torch.cat([self.ids, names], 1).gather(1, places)
