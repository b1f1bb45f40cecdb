"""Many FIDs of parts of the same images, against one Gaussian: what replays of races ask for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from errors_of_fid import Array
from numpy.typing import NDArray

from cdm_cli.metrics.frechet import FeatureGaussian
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.order import deal_groups

Labels = NDArray[np.int64]
Sums = tuple[float, Array, float, Array, Array]  # of a few images: num, x, x², z, z zᵀ


class Points:
    """Features of P points of the same N images, ready for many FIDs against one Gaussian.

    The eigenvalues of Sigma Sigma_ref are those of the covariance of Sigma_ref^½ x, so each FID
    takes one symmetric eigenvalue problem; the numbers are those of metrics/frechet.py.
    """

    def __init__(self, x: Sequence[Array], labels: Labels, real: FeatureGaussian) -> None:
        values, vectors = np.linalg.eigh(real.sigma)
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        self.x = [np.asarray(one, np.float64) - real.mu for one in x]
        self.z = [one @ root for one in self.x]
        self.labels, self.trace = labels, float(np.trace(real.sigma))

    def judged(self, point: int, rows: Labels, G: int) -> Estimate:
        """Return FID of some images of a point, and without each of G groups of them."""
        groups = deal_groups(rows, self.labels[rows], G)
        if len(rows) <= self.x[point].shape[1]:
            left = [self._fid_of_few(point, rows[groups != g]) for g in range(G)]
            return Estimate(self._fid_of_few(point, rows), tuple(left))
        parts = [self._sums(point, rows[groups == g]) for g in range(G)]
        whole = tuple(map(sum, zip(*parts, strict=True)))
        return Estimate(self._fid(whole), tuple(self._fid(_without(whole, one)) for one in parts))

    def _sums(self, point: int, rows: Labels) -> Sums:
        x, z = self.x[point][rows], self.z[point][rows]
        return len(rows), x.sum(0), float((x * x).sum()), z.sum(0), z.T @ z

    def _fid(self, sums: Any) -> float:
        num, x, xx, z, zz = sums
        gap = x / num
        trace = (xx - num * gap @ gap) / (num - 1)
        squares = np.linalg.eigvalsh((zz - np.outer(z, z) / num) / (num - 1))
        return float(gap @ gap + trace + self.trace - 2 * np.sqrt(squares.clip(0)).sum())

    def _fid_of_few(self, point: int, rows: Labels) -> float:
        """Return the same of fewer images than dimensions, by their products with each other."""
        x, z, num = self.x[point][rows], self.z[point][rows], len(rows)
        gap, z = x.mean(0), z - z.mean(0)
        trace = float(((x - gap) ** 2).sum()) / (num - 1)
        squares = np.linalg.eigvalsh(z @ z.T / (num - 1))[1:]  # their sum is 0: so is the first
        return float(gap @ gap + trace + self.trace - 2 * np.sqrt(squares.clip(0)).sum())


def _without(whole: Any, part: Sums) -> Sums:
    num, x, xx, z, zz = whole
    return num - part[0], x - part[1], xx - part[2], z - part[3], zz - part[4]


def interleaved(labels: Labels, rng: np.random.Generator) -> Labels:
    """Return all places in an order of chance, class by class in turn."""
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    names, counts = np.unique(labels, return_counts=True)
    rank = np.concatenate([np.arange(count) for count in counts])
    return by_class[np.lexsort((np.repeat(names, counts), rank))]
