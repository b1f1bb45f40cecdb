"""The Fréchet distance between two Gaussians (Dowson & Landau 1982), and their moments.

d² = |mu - mu_ref|² + Tr(Sigma + Sigma_ref - 2 (Sigma Sigma_ref)^½). With Sigma = F Fᵀ and
Sigma_ref = G Gᵀ the eigenvalues of Sigma Sigma_ref are the squared singular values of Gᵀ F,
so a symmetric eigenvalue problem gives the last trace: no matrix square root, no imaginary
parts, no offset on the diagonal. Everything is float64; mu is [D], Sigma is [D, D].
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Matrix = NDArray[np.float64]

# Below this fraction of the largest diagonal entry a pivot is rounding noise: keeping such
# columns would add the root of the noise, 1e-8, for every dimension that is really empty.
_RANK_TOLERANCE = 16 * float(np.finfo(np.float64).eps)


def factor(sigma: Matrix) -> Matrix:
    """Return F [D, rank] with F Fᵀ = sigma, by Cholesky decomposition with pivoting.

    Works for any positive semi-definite matrix; fewer samples than dimensions, constant
    features and an all-zero matrix only make F narrower.
    """
    from scipy.linalg import get_lapack_funcs  # half a second, of every command that judges later

    tolerance = _RANK_TOLERANCE * float(np.max(np.diag(sigma), initial=0.0))
    (pstrf,) = get_lapack_funcs(("pstrf",), (sigma,))
    packed, pivots, rank, _ = pstrf(sigma, lower=1, tol=tolerance)
    F = np.zeros((len(sigma), rank))
    F[pivots - 1] = np.tril(packed)[:, :rank]
    return F


@dataclass(frozen=True)
class FeatureGaussian:
    """mu [D] and sigma [D, D] in float64, with the factor of sigma computed once."""

    mu: Matrix
    sigma: Matrix

    @classmethod
    def of(cls, mu: ArrayLike, sigma: ArrayLike) -> "FeatureGaussian":
        """Check shapes and finiteness; sigma is made exactly symmetric."""
        mean, covariance = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mu {mean.shape} and sigma {covariance.shape}: expected [D], [D, D]")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("mu or sigma is not finite")
        return cls(mean, (covariance + covariance.T) / 2)

    @cached_property
    def factor(self) -> Matrix:
        """F [D, rank] with F Fᵀ = sigma."""
        return factor(self.sigma)

    def distance(self, other: "FeatureGaussian") -> float:
        """Return the squared Fréchet distance to other, the number known as FID."""
        if self.mu.shape != other.mu.shape:
            raise ValueError(f"{len(self.mu)} dimensions against {len(other.mu)}")
        product = other.factor.T @ self.factor
        if product.shape[0] < product.shape[1]:
            product = product.T
        squares = np.linalg.eigvalsh(product.T @ product)
        root_trace = float(np.sqrt(np.clip(squares, 0, None)).sum())
        gap = self.mu - other.mu
        traces = float(np.trace(self.sigma) + np.trace(other.sigma))
        return max(float(gap @ gap) + traces - 2 * root_trace, 0.0)


class Moments(NamedTuple):
    """Streaming mean and covariance: sums in float64 on the device of the features.

    Flat in memory however many features are added. n: how many they are, [1]; total: their sum,
    [D]; outer: the sum of x xᵀ, [D, D].
    """

    n: Tensor
    total: Tensor
    outer: Tensor

    @classmethod
    def zeros(cls, feature_dim: int, device: torch.device | str = "cpu") -> "Moments":
        """Start with nothing seen."""
        shapes = ((1,), (feature_dim,), (feature_dim, feature_dim))
        return cls(*(torch.zeros(s, dtype=torch.float64, device=device) for s in shapes))

    @property
    def num(self) -> int:
        """How many features were added."""
        return int(self.n)

    def add(self, features: Tensor) -> None:
        """Add features [B, D]. Infinities and NaN show in `gaussian`."""
        x = features.double()
        self.n.add_(len(x))
        self.total.add_(x.sum(0))
        self.outer.addmm_(x.T, x)

    def merge(self, other: "Moments") -> None:
        """Add everything that other has seen."""
        for mine, theirs in zip(self, other, strict=True):
            mine.add_(theirs.to(mine.device))

    def to_host(self) -> "Moments":
        """Return the same sums in the memory of the host."""
        return Moments(*(sums.cpu() for sums in self))

    def without(self, other: "Moments") -> "Moments":
        """Return the moments of what self has seen and other, a part of it, has not."""
        return Moments(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def mu(self) -> Matrix:
        """The mean [D]."""
        return (self.total / self.n.clamp(min=1)).cpu().numpy()

    @property
    def sigma(self) -> Matrix:
        """The covariance [D, D], divided by N - 1. Raises ValueError for fewer than two."""
        if self.num < 2:
            raise ValueError(f"a covariance needs two samples, {self.num} were added")
        mean = self.total / self.n
        centred = self.outer - self.n * torch.outer(mean, mean)
        return (centred / (self.n - 1)).cpu().numpy()

    def gaussian(self) -> FeatureGaussian:
        """Return the Gaussian with these moments. Raises ValueError if they are not finite."""
        return FeatureGaussian.of(self.mu, self.sigma)
