"""Races replayed from stored features: what is left, whether the best is in it, beside a grid.

    python benchmarks/race_replay.py --features DIR -o replays.jsonl [--replays 200] [--jobs 16]
    python benchmarks/race_replay.py --families 300 [--jobs 16]

--features: a folder with one file for each point of a sweep, NAME.npy [N, D] of the same N ids,
labels.npy [N], and trained.npz with mu and sigma (or reference [M, D]) of the real images. A replay
takes the images in another order, interleaved by class as `cdm sample` does, and races with 1/20,
1/10, 1/5 and 1/2 of the evaluations of the grid (--shares). Beside it are what as many images leave
if all points get the same number: by the verdicts of `cdm sweep-s --num`, and by the statistics
of the race, with its groups. -o has a line for each replay as soon as it is done; replays that
are in it are not done again, so a run that is cut goes on.

--families: drawn families of 13 points, raced with a third of their images. Of those of equal FID
each is a best one; in another, two are the best, and others behind them. Each of the best should
be beaten in 5 % of all races at most.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from errors_of_fid import FAMILIES, Case, show
from machine import machine
from many_fids import Labels, Points, interleaved

from cdm_cli.metrics.best import rank_contenders
from cdm_cli.metrics.frechet import FeatureGaussian
from cdm_cli.metrics.jackknife import NUM_GROUPS, Estimate
from cdm_cli.metrics.racing import Round, count_groups, race
from cdm_cli.metrics.verdicts import reach_verdicts

SHARES = "20,10,5,2"
EVERY = 20  # replays between two lines of progress
OF_A_FAMILY = 3  # one of so many of its images is the budget of a race


@dataclass
class Order:
    """Images of all points in an order; each number is found once."""

    points: Points
    order: Labels
    found: dict[tuple[int, int, int], Estimate] = field(default_factory=dict)  # type: ignore[arg-type]

    def judge(self, some: Iterable[int], num: int, G: int) -> list[Estimate]:
        """Return the numbers of some points on the first num images, in G groups."""
        for i in some:
            if (i, num, G) not in self.found:
                self.found[i, num, G] = self.points.judged(i, self.order[:num], G)
        return [self.found[i, num, G] for i in some]

    def raced(self, budget: int) -> list[Round]:
        """Return the rounds of a race."""
        costs = [1] * len(self.points.x)

        def judge(some: Sequence[int], num: int) -> list[Estimate]:
            return self.judge(some, num, count_groups(num))

        return list(race(costs, budget, len(self.order), judge))

    def uniform(self, num: int) -> tuple[list[int], list[int]]:
        """Return who is left of the same images for all: by verdicts, and as a race judges."""
        all_ = range(len(self.points.x))
        verdicts = reach_verdicts(self.judge(all_, num, NUM_GROUPS))
        raced = rank_contenders(self.judge(all_, num, count_groups(num)))
        return (
            [i for i, one in enumerate(verdicts) if one.standing != "worse"],
            [i for i, one in enumerate(raced) if not one.beaten],
        )


def replayed(points: Points, share: int, seed: int) -> dict[str, Any]:
    """Race once with a share of the grid; return who is left, of it and of uniform numbers."""
    order = Order(points, interleaved(points.labels, np.random.default_rng(seed)))
    num = len(order.order) // share
    rounds = order.raced(len(points.x) * num)
    verdicts, same = order.uniform(num)
    return {
        "share": share, "seed": seed, "num": rounds[-1].num, "rounds": len(rounds),
        "race": list(rounds[-1].left), "verdicts": verdicts, "uniform": same,
    }  # fmt: skip


T = TypeVar("T")


def in_parallel(work: Callable[[int], T], seeds: Sequence[int], jobs: int) -> Iterator[T]:
    """Yield work of each seed, as it comes, by several processes that share what is in memory."""
    if jobs == 1:
        yield from map(work, seeds)
        return
    global _work  # what is forked is not pickled
    _work = work
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(_call, seeds)


_work: Callable[[int], Any] = print


def _call(seed: int) -> Any:
    return _work(seed)


def show_replays(folder: Path, shares: list[int], replays: int, jobs: int, out: Path) -> None:
    """Print one line for each share of the grid."""
    names = sorted(path.stem for path in folder.glob("*-s*.npy"))
    real = _real(folder / "trained.npz")
    labels = np.load(folder / "labels.npy").astype(np.int64)
    points = Points([np.load(folder / f"{name}.npy") for name in names], labels, real)
    grid = [points.judged(i, np.arange(len(labels)), NUM_GROUPS) for i in range(len(names))]
    alike = [i for i, one in enumerate(reach_verdicts(grid)) if one.standing != "worse"]
    values = np.array([one.value for one in grid])
    best = int(values.argmin())
    for name, one in zip(names, grid, strict=True):
        print(f"{name:24} FID {one.value:.4f}  less its bias {one.corrected:.4f}")
    print(f"grid of {len(names)} x {len(labels)}: lowest {names[best]}; {len(alike)} are not told "
          f"apart: {', '.join(names[i] for i in alike)}", flush=True)  # fmt: skip
    for share in shares:
        found = _continued(out, share, replays)
        todo = sorted(set(range(replays)) - {one["seed"] for one in found})
        begun = time.monotonic()
        for one in in_parallel(lambda seed: replayed(points, share, seed), todo, jobs):  # noqa: B023
            with out.open("a") as file:
                file.write(json.dumps(one) + "\n")
            found.append(one)
            if len(found) % EVERY == 0 or len(found) == replays:
                _tell(found, share, best, len(alike), time.monotonic() - begun)
        if not todo:
            _tell(found, share, best, len(alike), 0.0)


def _continued(out: Path, share: int, replays: int) -> list[dict[str, Any]]:
    """Return the replays of a share that a file has."""
    lines = out.read_text().splitlines() if out.exists() else []
    there = [json.loads(line) for line in lines if line.endswith("}")]
    return [one for one in there if one["share"] == share and one["seed"] < replays]


def _tell(found: list[dict[str, Any]], share: int, best: int, alike: int, took: float) -> None:
    """Print what replays of a share come to; sizes are means with their standard errors."""
    size = {name: np.array([len(one[name]) for one in found]) for name in KINDS}
    cells = {"replays": len(found)}
    cells |= {f"{name} leaves": float(each.mean()) for name, each in size.items()}
    for name in KINDS[1:]:
        gap = size["race"] - size[name]
        cells |= {f"less than {name}": -float(gap.mean())}
        cells |= {"±": float(gap.std(ddof=1) / len(gap) ** 0.5) if len(gap) > 1 else 0.0}
    cells |= {f"best in {name}": sum(best in one[name] for one in found) for name in KINDS}
    cells |= {"at most 2 more than the grid": int((size["race"] <= alike + 2).sum())}
    cells |= {"images": _mean(found, "num"), "rounds": _mean(found, "rounds"), "seconds": took}
    show(f"1/{share} of the grid", cells)


KINDS = ("race", "verdicts", "uniform")


def _mean(found: Sequence[Any], name: Any) -> float:
    return float(np.mean([one[name] for one in found]))


def _real(path: Path) -> FeatureGaussian:
    with np.load(path) as file:
        if "mu" in file:
            return FeatureGaussian.of(file["mu"], file["sigma"])
        reference = file["reference"].astype(np.float64)
    return FeatureGaussian.of(reference.mean(0), np.cov(reference.T))


BEHIND = (0.0, *np.linspace(0.0, 1.2, 12))  # how far points are behind the best, of its shift


def show_families(families: int, jobs: int) -> None:
    """Print how often one of the best is beaten in a race, in families of 13 points."""
    for case in FAMILIES:
        _tell_family(case.name, replace(case, N=1600), False, families, jobs)
    _tell_family("two best, others behind", replace(FAMILIES[0], N=1600), True, families, jobs)


def _tell_family(name: str, case: Case, behind: bool, families: int, jobs: int) -> None:
    """Print one line of a kind of families.

    behind: all but the first two points are shifted further the same way; else all are equal.
    """
    found = list(in_parallel(lambda seed: _family(case, behind, seed), range(families), jobs))
    lost = np.array([one[0] for one in found])
    show(name, {
        "families": families,
        "a best one is beaten": float(lost.mean()),
        "±": float(lost.std(ddof=1) / families**0.5),
        "any of them": float((lost > 0).mean()),
        "all of them": float((lost == 1).mean()),
        "left": _mean(found, 1),
        "rounds": _mean(found, 2),
    })  # fmt: skip


def _family(case: Case, behind: bool, seed: int) -> tuple[float, int, int]:
    """Race once; return the share of the best that is beaten, how many are left, and rounds."""
    rng = np.random.default_rng((11, seed))
    x, labels = case.draw(rng)
    best = set(range(2 if behind else len(x)))
    if behind:
        x = x + np.array(BEHIND)[:, None, None] * case.offsets()[0][:, None] * 0.2
    points = Points(list(x), labels, FeatureGaussian.of(np.zeros(case.D), case.sigma))
    rounds = Order(points, interleaved(labels, rng)).raced(x.shape[0] * x.shape[1] // OF_A_FAMILY)
    left = set(rounds[-1].left)
    return len(best - left) / len(best), len(left), len(rounds)


def main() -> None:
    """Print the machine and what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=Path, help="a folder of .npy files")
    parser.add_argument("--replays", type=int, default=200, help="for each share of the grid")
    parser.add_argument("--shares", default=SHARES, help="of the grid: one of so many")
    parser.add_argument("-o", "--out", type=Path, default=Path("replays.jsonl"), help="of replays")
    parser.add_argument("--families", type=int, default=300, help="of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    print(machine())
    if arguments.features:
        shares = [int(share) for share in arguments.shares.split(",")]
        show_replays(arguments.features, shares, arguments.replays, arguments.jobs, arguments.out)
    else:
        show_families(arguments.families, arguments.jobs)


if __name__ == "__main__":
    main()
