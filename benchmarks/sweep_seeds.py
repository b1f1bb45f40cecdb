"""Read sweeps over the same points by stages of different training seeds: what holds for all.

    python benchmarks/sweep_seeds.py sweep-0 sweep-1 sweep-2 [-o seeds.png]

Prints, for each point, FID of each seed, the mean with the spread over seeds (standard deviation),
the error within a seed (jackknife, mean), and how much higher than the lowest mean it is: the mean
of the differences within each seed, with its standard error over seeds and Student's t, of which
4.3 is the two-sided level of 5 % for three seeds and one comparison. FID moves more by retraining
than by sampling again, so a verdict within one seed is a verdict on that stage alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Point = tuple[str, int]
COLOURS = {"truncated": "tab:blue", "non-truncated": "tab:orange", "ground-truth": "tab:green"}


def read(directory: Path, reference: str, metric: str) -> dict[Point, tuple[float, float, str]]:
    """Return value, error and verdict of each point of one sweep."""
    table = json.loads((directory / "sweep.json").read_text())
    verdicts = {
        (one["point"]["augment"], one["point"]["s"]): one["verdict"]
        for one in table.get("comparisons", ())
        if one["metric"] == metric and one["reference"] == reference
    }
    found = {}
    for row in table["rows"]:
        if row["metric"] == metric and row["reference"] == reference:
            point = row["extra"]["augment"], row["extra"]["s"]
            found[point] = row["value"], row["uncertainty"], verdicts.get(point, "")
    return found


def gap(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, standard error and Student's t of differences [K], one of each seed."""
    mean = float(values.mean())
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return mean, error, mean / error if error else 0.0


def tell(points: list[Point], value: np.ndarray, error: np.ndarray, good: np.ndarray) -> None:
    """Print a line for each point: value [K, P], error within a seed [K, P], good [K, P]."""
    generated = [i for i, (kind, _) in enumerate(points) if kind != "ground-truth"]
    lowest = min(generated, key=lambda i: value[:, i].mean())
    print(f"lowest mean: {points[lowest][0]} s = {points[lowest][1]}")
    print(
        "augment s | of each seed | mean | spread over seeds | error within | above the lowest | t "
        "| seeds where it is as good as the best"
    )
    for i, (kind, s) in enumerate(points):
        mean, of_mean, t = gap(value[:, i] - value[:, lowest])
        each = " ".join(f"{one:.4f}" for one in value[:, i])
        print(f"{kind} {s} | {each} | {value[:, i].mean():.4f} | {value[:, i].std(ddof=1):.4f} | "
              f"{error[:, i].mean():.4f} | {mean:.4f} ± {of_mean:.4f} | {t:.1f} | "
              f"{int(good[:, i].sum())} of {len(value)}")  # fmt: skip


def tell_kinds(points: list[Point], value: np.ndarray) -> None:
    """Print truncated less non-truncated, at each s that both have."""
    print("truncated less non-truncated | t")
    for i, (kind, s) in enumerate(points):
        if kind == "truncated" and ("non-truncated", s) in points:
            mean, error, t = gap(value[:, i] - value[:, points.index(("non-truncated", s))])
            print(f"{s} | {mean:.4f} ± {error:.4f} | {t:.1f}")


def draw(path: Path, points: list[Point], value: np.ndarray, metric: str) -> None:
    """Draw each seed as a thin line, and the mean over seeds as a thick one."""
    figure = Figure(figsize=(6, 4.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, colour in COLOURS.items():
        own = [i for i, (name, _) in enumerate(points) if name == kind]
        start = [i for i, (name, _) in enumerate(points) if name == "none"]
        if not own:
            continue
        places = own if kind == "ground-truth" else start + own
        s = [points[i][1] for i in places]
        for seed in value[:, places]:
            axes.plot(s, seed, color=colour, alpha=0.35, linewidth=1)
        axes.plot(s, value[:, places].mean(0), color=colour, linewidth=2.2, marker="o", label=kind)
    axes.set_xlabel("s")
    axes.set_ylabel({"fid": "FID against train"}.get(metric, metric))
    axes.set_title(f"{len(value)} trainings of the super-resolution stage, and their mean")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Read the sweeps and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sweeps", nargs="+", type=Path)
    parser.add_argument("--reference", default="train")
    parser.add_argument("--metric", default="fid")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    found = [read(path, given.reference, given.metric) for path in given.sweeps]
    points = [point for point in found[0] if all(point in one for one in found)]
    value, error = (np.array([[one[p][k] for p in points] for one in found]) for k in (0, 1))
    good = np.array([["best" in one[p][2] for p in points] for one in found])
    tell(points, value, error, good)
    tell_kinds(points, value)
    if given.out:
        draw(given.out, points, value, given.metric)


if __name__ == "__main__":
    main()
