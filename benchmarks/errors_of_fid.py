"""Whether the errors of FID are the spread of repeated draws, and how often a verdict is wrong.

    python benchmarks/errors_of_fid.py [--draws 200] [--families 1000]
    python benchmarks/errors_of_fid.py --features features.npz [--size 1000]

Without --features, samples are drawn from mixtures of Gaussians (or skewed ones), one for each
class, and FID is against the true moments: points of one family share the classes and, as the
points of a sweep, part of the noise. With --features, disjoint sets of --size images are taken from
a file: `features` [N, D], or [P, N, D] of P points with the same ids, `labels` [N], and what they
are compared with, `mu` [D] and `sigma` [D, D] or `reference` [M, D].

First table: the mean of what is reported over the standard deviation of what is found; 1 is right.
Second table: families of 13 points of equal FID, in which nothing should be called worse.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.frechet import FeatureGaussian, Moments
from cdm_cli.metrics.jackknife import Estimate, variance
from cdm_cli.metrics.order import deal_groups
from cdm_cli.metrics.verdicts import reach_verdicts

POINTS = 13
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A distribution of samples, and how far its points are from the real images.

    counts: how unequal classes are, "equal" or "1/k". near: the correlation of the noise of
    neighbouring points. ways: in which each point is off: all in the "same" way, in "other"
    directions, or the "narrower" the less they are shifted, at one FID. drawn: labels at random.
    """

    name: str
    D: int = 64
    N: int = 1000
    K: int = 10
    counts: str = "equal"
    shift: float = 0.7
    scale: float = 0.9
    near: float = 0.95
    ways: str = "same"
    skewed: bool = False
    drawn: bool = False
    points: int = 2

    @property
    def spectrum(self) -> Array:
        """The variances [D] within a class."""
        return np.arange(1, self.D + 1, dtype=np.float64) ** -0.5

    @property
    def shares(self) -> Array:
        """The shares [K] of the classes, as whole images."""
        weights = np.ones(self.K) if self.counts == "equal" else 1 / np.arange(1, self.K + 1)
        counts = np.round(weights / weights.sum() * self.N)
        counts[0] += self.N - counts.sum()
        return counts / self.N

    @property
    def means(self) -> Array:
        """The means [K, D] of the classes, about the mean of all."""
        means = np.random.default_rng(5).normal(size=(self.K, self.D)) * self.spectrum**0.5
        return means - self.shares @ means

    @property
    def sigma(self) -> Array:
        """The covariance [D, D] of the real images, whose mean is 0."""
        return np.diag(self.spectrum) + (self.means * self.shares[:, None]).T @ self.means

    def offsets(self) -> tuple[Array, Array]:
        """Return the shift [P, D] and the scale [P] of each point."""
        P, total = self.points, np.trace(self.sigma)
        scale = np.full(P, self.scale)
        directions = np.random.default_rng(6).normal(size=(P, self.D)) * self.spectrum**0.5
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        if self.ways != "other":
            directions[:] = directions[0]
        if self.ways == "narrower":
            scale = np.linspace(self.scale, 1, P)
        fid = self.shift**2 + total * (1 - self.scale) ** 2
        return directions * np.sqrt(fid - total * (1 - scale[:, None]) ** 2), scale

    def draw(self, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
        """Return features [P, N, D] and labels [N]."""
        counts = (self.shares * self.N).round().astype(int)
        labels = np.repeat(np.arange(self.K), counts)
        if self.drawn:
            labels = rng.choice(self.K, self.N, p=self.shares)
        noise = [self._noise(rng)]
        for _ in range(self.points - 1):
            fresh = (1 - self.near**2) ** 0.5 * self._noise(rng)
            noise.append(self.near * noise[-1] + fresh)
        shift, scale = self.offsets()
        x = self.means[labels] + np.stack(noise) * self.spectrum**0.5
        return x * scale[:, None, None] + shift[:, None], labels

    def _noise(self, rng: np.random.Generator) -> Array:
        z = rng.normal(size=(self.N, self.D))
        skewed = (np.exp(z / 2) - np.exp(1 / 8)) / np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
        return skewed if self.skewed else z

    def sets(self, num: int) -> Iterator[tuple[Array, NDArray[np.int64], FeatureGaussian]]:
        """Yield num draws, and the real images."""
        rng, real = np.random.default_rng(7), FeatureGaussian.of(np.zeros(self.D), self.sigma)
        for _ in range(num):
            yield *self.draw(rng), real


SINGLE = (
    Case("classes of equal size"),
    Case("classes of 1/k", counts="1/k"),
    Case("equal, FID mostly bias", shift=0.2, scale=0.97),
    Case("1/k, FID mostly bias", shift=0.2, scale=0.97, counts="1/k"),
    Case("equal, FID all bias", shift=0.0, scale=1.0),
    Case("equal, skewed features", skewed=True),
    Case("100 classes of 10", K=100),
    Case("200 classes of 5", K=200),
    Case("500 classes of 2", K=500),
    Case("(classes drawn at random)", drawn=True),
)
FAMILY = Case("same distribution", D=32, N=500, points=POINTS)
FAMILIES = (
    FAMILY,
    replace(FAMILY, name="same, classes of 1/k", counts="1/k"),
    replace(FAMILY, name="same, nearer noise", near=0.99),
    replace(FAMILY, name="same, noise of their own", near=0.0),
    replace(FAMILY, name="same, FID mostly bias", shift=0.2, scale=0.97),
    replace(FAMILY, name="same, skewed features", skewed=True),
    replace(FAMILY, name="shifted in other directions", ways="other"),
    replace(FAMILY, name="narrower or shifted", ways="narrower"),
)


def estimated(
    x: Array, labels: NDArray[np.int64], real: FeatureGaussian, ids: NDArray[np.int64] | None = None
) -> list[Estimate]:
    """Return the FID of each point of x [P, N, D], as `cdm eval fid` does."""
    places = np.arange(len(labels))
    found: list[Estimate] = []
    for features in torch.from_numpy(x).float():
        collector = Collector.empty(
            places if ids is None else ids, labels, features.shape[1], keep=2
        )
        collector.add(places, features, None)
        found.append(collector.frechet(real))
    return found


def spread(sets: Iterator[tuple[Array, NDArray[np.int64], FeatureGaussian]]) -> dict[str, float]:
    """Return the ratios of reported and found, of single numbers and of all pairs with the first.

    before: what the plain jackknife of shuffled groups reports.
    """
    rows: list[dict[str, Array]] = []
    for x, labels, real in sets:
        one = estimated(x, labels, real)
        shuffled = estimated(x[:1], np.zeros_like(labels), real)[0]
        gaps = [one[0].minus(other) for other in one[1:]]
        rows.append({
            "value": _array(found.value for found in one),
            "corrected": _array(found.corrected for found in one),
            "error": _array(found.error for found in one),
            "plain": _array(variance(found.value, found.without) ** 0.5 for found in one),
            "before": _array([variance(shuffled.value, shuffled.without) ** 0.5]),
            "gap": _array(gap.value for gap in gaps),
            "gap_error": _array(gap.error for gap in gaps),
        })  # fmt: skip
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    sd, gap_sd = found["value"].std(0, ddof=1), found["gap"].std(0, ddof=1)
    return {
        "FID": found["value"].mean(),
        "corrected": found["corrected"].mean(),
        "spread": sd.mean(),
        "of it corrected": found["corrected"].std(0, ddof=1).mean() / sd.mean(),
        "before": (found["before"].mean(0) / sd[:1]).mean(),
        "plain": (found["plain"].mean(0) / sd).mean(),
        "single": (found["error"].mean(0) / sd).mean(),
        **({"paired spread": gap_sd.mean(), "paired": (found["gap_error"].mean(0) / gap_sd).mean()}
           if gap_sd.size else {}),
    }  # fmt: skip


def _array(values: Any) -> Array:
    return np.array(list(values), dtype=np.float64)


def wrong(families: Iterable[list[Estimate]]) -> dict[str, float]:
    """Return the share of families of equal points in which any is called worse."""
    calls = [any(one.standing == "worse" for one in reach_verdicts(family)) for family in families]
    share = float(np.mean(calls))
    return {"families": len(calls), "wrong": share, "±": (share * (1 - share) / len(calls)) ** 0.5}


class Features:
    """Features of a file, dealt into disjoint sets of one size, classes alike."""

    def __init__(self, path: Path, size: int) -> None:
        with np.load(path) as file:
            held = {name: file[name] for name in file.files}
        x = held["features"]
        self.x, self.labels = x if x.ndim == 3 else x[None], held["labels"].astype(np.int64)
        self.real = _real(held)
        self.num = self.x.shape[1] // size
        ids = np.arange(self.x.shape[1])
        self.of_set, self.size = deal_groups(ids, self.labels, self.num), size

    def sets(self) -> Iterator[tuple[Array, NDArray[np.int64], FeatureGaussian]]:
        """Yield every set."""
        for number in range(self.num):
            rows = np.flatnonzero(self.of_set == number)
            yield self.x[:, rows].astype(np.float64), self.labels[rows], self.real

    def mixed(self, num: int) -> Iterator[tuple[Array, NDArray[np.int64], FeatureGaussian]]:
        """Yield families of points of equal FID that share noise.

        Each point takes every image of one set from one of the first two points by chance.
        """
        rng, sets = np.random.default_rng(8), list(self.sets())
        for _ in range(num):
            x, labels, real = sets[rng.integers(len(sets))]
            which = rng.integers(0, 2, (POINTS, len(labels)))
            yield x[which, np.arange(len(labels))], labels, real

    def apart(self, num: int) -> Iterator[list[Estimate]]:
        """Yield families of 13 sets of the first point; of few sets, families are much alike."""
        rng = np.random.default_rng(9)
        found = [estimated(x[:1], labels, real)[0] for x, labels, real in self.sets()]
        for _ in range(num):
            yield [found[i] for i in rng.choice(len(found), POINTS, replace=False)]


def _real(held: dict[str, Any]) -> FeatureGaussian:
    if "mu" in held:
        return FeatureGaussian.of(held["mu"], held["sigma"])
    moments = Moments.zeros(held["reference"].shape[1])
    moments.add(torch.from_numpy(held["reference"].astype(np.float64)))
    return moments.gaussian()


def main() -> None:
    """Print the machine and both tables."""
    from machine import machine

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=200, help="of each distribution")
    parser.add_argument("--families", type=int, default=1000, help="of each kind")
    parser.add_argument("--features", type=Path, help="an .npz, instead of drawn samples")
    parser.add_argument("--size", type=int, default=1000, help="images of a set of --features")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    if arguments.features:
        held = Features(arguments.features, arguments.size)
        show(f"{held.num} sets of {held.size}", spread(held.sets()))
        if len(held.x) > 1:
            mixed = (estimated(*drawn) for drawn in held.mixed(arguments.families))
            show(f"{POINTS} mixtures of two points", wrong(mixed))
        if held.num >= POINTS:
            show(f"{POINTS} sets of one point", wrong(held.apart(arguments.families)))
        return
    for case in SINGLE:
        show(case.name, spread(case.sets(arguments.draws)))
    for case in FAMILIES:
        show(case.name, wrong(estimated(*drawn) for drawn in case.sets(arguments.families)))


def show(name: str, found: dict[str, float]) -> None:
    """Print one line of a table."""
    cells = "  ".join(f"{title} {value:.4g}" for title, value in found.items())
    print(f"{time.strftime('%H:%M:%S')}  {name:28}  {cells}", flush=True)


if __name__ == "__main__":
    main()
