"""Races replayed from stored features: what is left, whether the best is in it, beside a grid.

    python benchmarks/race_replay.py --features DIR [--replays 200] [--shares 20,10,5,2] [--jobs 2]
    python benchmarks/race_replay.py --families 600 [--jobs 2]

--features: a folder with one file for each point of a sweep, NAME.npy [N, D] of the same N ids,
labels.npy [N], and trained.npz with mu and sigma (or reference [M, D]) of the real images. A replay
takes the images in another order, interleaved by class as `cdm sample` does, and races with 1/20,
1/10, 1/5 and 1/2 of the evaluations of the grid. Beside it are what as many images leave if all
points get the same number (`cdm sweep-s --num`, ten groups; and with the groups of the race).

--families: drawn families of 13 points. In those of equal FID nothing should leave; in those of
one true best, and others behind it, the best should stay.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from errors_of_fid import FAMILIES, Array, Case, show
from machine import machine
from numpy.typing import NDArray

from cdm_cli.metrics.frechet import Gaussian
from cdm_cli.metrics.jackknife import NUM_GROUPS, Estimate
from cdm_cli.metrics.order import groups_of
from cdm_cli.metrics.racing import Round, num_groups, race
from cdm_cli.metrics.verdicts import verdicts_on

SHARES = "20,10,5,2"
Labels = NDArray[np.int64]
Sums = tuple[float, Array, float, Array, Array]  # of a few images: num, x, x², z, z zᵀ


class Points:
    """Features of P points of the same N images, ready for many FIDs against one Gaussian.

    The eigenvalues of Sigma Sigma_ref are those of the covariance of Sigma_ref^½ x, so each FID
    takes one symmetric eigenvalue problem; the numbers are those of metrics/frechet.py.
    """

    def __init__(self, x: Sequence[Array], labels: Labels, real: Gaussian) -> None:
        values, vectors = np.linalg.eigh(real.sigma)
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        self.x = [np.asarray(one, np.float64) - real.mu for one in x]
        self.z = [one @ root for one in self.x]
        self.labels, self.trace = labels, float(np.trace(real.sigma))

    def judged(self, point: int, rows: Labels, G: int) -> Estimate:
        """Return FID of some images of a point, and without each of G groups of them."""
        groups = groups_of(rows, self.labels[rows], G)
        parts = [self._sums(point, rows[groups == g]) for g in range(G)]
        whole = self._sums(point, rows)
        return Estimate(self._fid(whole), tuple(self._fid(_without(whole, part)) for part in parts))

    def _sums(self, point: int, rows: Labels) -> Sums:
        x, z = self.x[point][rows], self.z[point][rows]
        return len(rows), x.sum(0), float((x * x).sum()), z.sum(0), z.T @ z

    def _fid(self, sums: Sums) -> float:
        num, x, xx, z, zz = sums
        gap = x / num
        trace = (xx - num * gap @ gap) / (num - 1)
        squares = np.linalg.eigvalsh((zz - np.outer(z, z) / num) / (num - 1))
        return float(gap @ gap + trace + self.trace - 2 * np.sqrt(squares.clip(0)).sum())


def _without(whole: Sums, part: Sums) -> Sums:
    num, x, xx, z, zz = whole
    return num - part[0], x - part[1], xx - part[2], z - part[3], zz - part[4]


def interleaved(labels: Labels, rng: np.random.Generator) -> Labels:
    """Return all places in an order of chance, class by class in turn."""
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    names, counts = np.unique(labels, return_counts=True)
    rank = np.concatenate([np.arange(count) for count in counts])
    return by_class[np.lexsort((np.repeat(names, counts), rank))]


def raced(points: Points, order: Labels, budget: int) -> list[Round]:
    """Return the rounds of a race over images in an order."""

    def judge(some: Sequence[int], num: int) -> list[Estimate]:
        return [points.judged(i, order[:num], num_groups(num)) for i in some]

    return list(race([1] * len(points.x), budget, len(order), judge))


def uniform(points: Points, order: Labels, G: int) -> set[int]:
    """Return who is left if all points are judged on the same images, once."""
    found = verdicts_on([points.judged(i, order, G) for i in range(len(points.x))])
    return {i for i, one in enumerate(found) if one.standing != "worse"}


@dataclass(frozen=True)
class Replay:
    """Who is left of a race, of as many images for all, and of those with as many groups."""

    race: set[int]
    num: int
    rounds: int
    ten: set[int]
    more: set[int]


def replayed(points: Points, share: int, seed: int) -> Replay:
    """Race once with a share of the grid."""
    order = interleaved(points.labels, np.random.default_rng(seed))
    num = len(order) // share
    rounds = raced(points, order, len(points.x) * num)
    last = rounds[-1]
    some = order[:num]
    ten, more = uniform(points, some, NUM_GROUPS), uniform(points, some, num_groups(num))
    return Replay(set(last.left), last.num, len(rounds), ten, more)


T = TypeVar("T")


def in_parallel(work: Callable[[int], T], num: int, jobs: int) -> Iterator[T]:
    """Yield work(0), work(1), …, by several processes that share what is in memory."""
    if jobs == 1:
        yield from map(work, range(num))
        return
    global _work  # what is forked is not pickled
    _work = work
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(_call, range(num))


_work: Callable[[int], Any] = print


def _call(seed: int) -> Any:
    return _work(seed)


def show_replays(folder: Path, shares: list[int], replays: int, jobs: int) -> None:
    """Print one line for each share of the grid."""
    names = sorted(path.stem for path in folder.glob("*-s*.npy"))
    real = _real(folder / "trained.npz")
    labels = np.load(folder / "labels.npy").astype(np.int64)
    points = Points([np.load(folder / f"{name}.npy") for name in names], labels, real)
    grid = [points.judged(i, np.arange(len(labels)), NUM_GROUPS) for i in range(len(names))]
    alike = {i for i, one in enumerate(verdicts_on(grid)) if one.standing != "worse"}
    values = np.array([one.value for one in grid])
    corrected = np.array([one.corrected for one in grid])
    best, least = int(values.argmin()), int(corrected.argmin())
    for name, value, less in zip(names, values, corrected, strict=True):
        print(f"{name:24} FID {value:.4f}  less its bias {less:.4f}")
    print(f"grid of {len(names)} x {len(labels)}: lowest {names[best]}, less its bias "
          f"{names[least]}; {len(alike)} are not told apart: "
          f"{', '.join(names[i] for i in sorted(alike))}")  # fmt: skip
    for share in shares:
        found = list(in_parallel(lambda seed: replayed(points, share, seed), replays, jobs))  # noqa: B023
        show(f"1/{share} of the grid", {
            "replays": len(found),
            "race leaves": _mean([len(one.race) for one in found]),
            "uniform": _mean([len(one.ten) for one in found]),
            "uniform, groups of the race": _mean([len(one.more) for one in found]),
            "lowest in it": sum(best in one.race for one in found),
            "less its bias": sum(least in one.race for one in found),
            "of uniform": sum(best in one.ten for one in found),
            "at most 2 more than the grid": sum(len(o.race) <= len(alike) + 2 for o in found),
            "images": _mean([one.num for one in found]),
            "rounds": _mean([one.rounds for one in found]),
        })  # fmt: skip


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))


def _real(path: Path) -> Gaussian:
    with np.load(path) as file:
        if "mu" in file:
            return Gaussian.of(file["mu"], file["sigma"])
        reference = file["reference"].astype(np.float64)
    return Gaussian.of(reference.mean(0), np.cov(reference.T))


BEHIND = (0.0, *np.linspace(0.0, 1.2, 12))  # how far points are behind the best, of its shift


def show_families(families: int, jobs: int) -> None:
    """Print how often a race calls something worse that is not, in families of 13 points."""
    for case in FAMILIES:
        long = replace(case, N=1600)
        found = list(in_parallel(lambda seed: _wrong(long, seed), families, jobs))  # noqa: B023
        share = _mean([one[0] for one in found])
        show(case.name, {
            "families": families, "wrong": share,
            "±": (share * (1 - share) / families) ** 0.5,
            "rounds": _mean([one[1] for one in found]),
        })  # fmt: skip
    case = replace(FAMILIES[0], N=1600)
    found = list(in_parallel(lambda seed: _best_lost(case, seed), families, jobs))
    show("two best, others behind", {
        "families": families,
        "lost one of the best": _mean([one[0] for one in found]),
        "left": _mean([one[1] for one in found]),
        "rounds": _mean([one[2] for one in found]),
    })  # fmt: skip


def _drawn(case: Case, seed: int) -> tuple[Array, Labels, np.random.Generator]:
    rng = np.random.default_rng((11, seed))
    x, labels = case.draw(rng)
    return x, labels, rng


def _wrong(case: Case, seed: int) -> tuple[bool, int]:
    x, labels, rng = _drawn(case, seed)
    points = Points(list(x), labels, Gaussian.of(np.zeros(case.D), case.sigma))
    rounds = raced(points, interleaved(labels, rng), x.shape[0] * x.shape[1])
    return any(one.beaten for one in rounds), len(rounds)


def _best_lost(case: Case, seed: int) -> tuple[bool, int, int]:
    """Shift the others further the same way: the first two are the best."""
    x, labels, rng = _drawn(case, seed)
    shift, _ = case.offsets()
    x = x + np.array(BEHIND)[:, None, None] * shift[:, None] * 0.2
    points = Points(list(x), labels, Gaussian.of(np.zeros(case.D), case.sigma))
    rounds = raced(points, interleaved(labels, rng), x.shape[0] * x.shape[1])
    return not {0, 1} <= set(rounds[-1].left), len(rounds[-1].left), len(rounds)


def main() -> None:
    """Print the machine and what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=Path, help="a folder of .npy files")
    parser.add_argument("--replays", type=int, default=200, help="for each share of the grid")
    parser.add_argument("--shares", default=SHARES, help="of the grid: one of so many")
    parser.add_argument("--families", type=int, default=600, help="of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    print(machine())
    if arguments.features:
        shares = [int(share) for share in arguments.shares.split(",")]
        show_replays(arguments.features, shares, arguments.replays, arguments.jobs)
    else:
        show_families(arguments.families, arguments.jobs)


if __name__ == "__main__":
    main()
