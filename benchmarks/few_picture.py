"""Draw FID against steps from the tables of few_evaluations.py, each training in its own tone.

    python benchmarks/few_picture.py few-sr0,few-sr0-8 few-sr1,few-sr1-8 -o few.png

An argument is one training: the directories of its tables, by commas, with the same reference.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WORDS = {"tuned": "found", "sde-dpm-solver++": "even times, SDE-DPM-Solver++"}
COLOURS = {"tuned": "tab:blue", "sde-dpm-solver++": "tab:gray"}
STYLES = ("-", "--", ":")


def read(directories: str) -> dict[str, dict[str, Any]]:
    """Return the rows of one training, by the name of the point."""
    tables = [json.loads((Path(name) / "few.json").read_text()) for name in directories.split(",")]
    return {row["name"]: row for table in tables for row in table["rows"]}


def draw(axes: Axes, rows: dict[str, dict[str, Any]], number: int) -> None:
    """Draw a curve for each kind of schedule, with errors, and the reference as a line."""
    style, whose = STYLES[number % len(STYLES)], f"training {number}"
    for kind, colour in COLOURS.items():
        points = sorted(
            (int(name.removeprefix(f"{kind}-")), row)
            for name, row in rows.items()
            if name.removeprefix(f"{kind}-").isdigit()
        )
        steps, fids = [n for n, _ in points], [row["fid"] for _, row in points]
        errors = [row["error"] for _, row in points]
        label = f"{WORDS[kind]}, {whose}"
        axes.errorbar(steps, fids, errors, label=label, color=colour, linestyle=style, marker=".")
    many = rows["reference"]["fid"]
    axes.axhline(many, color="tab:red", linestyle=style, label=f"250 ancestral steps, {whose}")


def main() -> None:
    """Read the tables and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trainings", nargs="+")
    parser.add_argument("-o", "--out", default="few.png")
    arguments = parser.parse_args()
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, directories in enumerate(arguments.trainings):
        draw(axes, read(directories), number)
    ticks = [2, 4, 6, 8, 12, 16, 20, 25]
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="FID against train", xticks=ticks)
    axes.set_xticklabels([str(n) for n in ticks])
    low, high = axes.get_ylim()
    axes.set_yticks([fid for fid in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < fid < high])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(fontsize=8)
    figure.savefig(arguments.out, dpi=100)


if __name__ == "__main__":
    main()
