"""The picture of a sweep: FID and IS against s, as Table 3 of the paper.

A ring is around each generated point that is as good as the best, a grey band around all of these.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.judging.band import draw_undecided
from cdm_cli.jobs.sweep.choice import Chosen, Judged, compared, title
from cdm_cli.jobs.sweep.plan import KINDS, Kind

COLOURS: dict[Kind, str] = {
    "truncated": "tab:blue", "non-truncated": "tab:orange", "ground-truth": "tab:green",
    "none": "black",
}  # fmt: skip
MARKS = "os^v"  # one for each reference


def write_plot(path: Path, points: Sequence[Judged], chosen: Chosen) -> None:
    """Draw FID against every reference, and IS where the judge gives it."""
    metrics = [
        name
        for name in ("fid", "is")
        if any(row.metric == name for point in points for row in point.rows)
    ]
    figure = Figure(figsize=(6 * len(metrics), 4.5))
    FigureCanvasAgg(figure)
    for place, metric in enumerate(metrics, 1):
        axes = figure.add_subplot(1, len(metrics), place)
        _draw(axes, points, metric)
        _draw_undecided(axes, points, metric, chosen.reference if metric == "fid" else "")
        axes.set_xlabel("s")
        axes.set_ylabel({"fid": "FID", "is": "Inception Score"}[metric])
        axes.legend(fontsize="small")
    figure.subplots_adjust(0.15 / len(metrics), 0.12, 1 - 0.04 / len(metrics), 0.92, wspace=0.2)
    figure.suptitle(title(points))
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120, metadata={"Software": None})
    write_file_atomically(path, held.getvalue())


def _draw(axes: Any, points: Sequence[Judged], metric: str) -> None:
    """Draw a line for each kind of augmentation and each reference, in the order of s."""
    kinds: list[Kind] = [kind for kind in KINDS if any(point.augment == kind for point in points)]
    for kind in kinds:
        if kind == "none" and len(kinds) > 1:
            continue  # the other lines begin there
        for mark, (reference, line) in zip(
            MARKS, _lines(points, metric, kind).items(), strict=False
        ):
            s, value, error = zip(*line, strict=True)
            axes.errorbar(
                s, value, yerr=error, capsize=2, color=COLOURS[kind], marker=mark,
                linestyle="--" if kind == "ground-truth" else "-",
                markerfacecolor=COLOURS[kind] if mark == MARKS[0] else "white",
                label=f"{kind} vs {reference}" if reference else kind,
            )  # fmt: skip


def _draw_undecided(axes: Any, points: Sequence[Judged], metric: str, reference: str) -> None:
    """Show which generated points are as good as the best by a metric and reference."""
    good = [
        one.point
        for one in compared([point for point in points if point.augment != "ground-truth"])
        if (one.metric, one.reference) == (metric, reference) and one.verdict != "worse"
    ]
    rows = [
        row
        for point in points
        for row in point.rows
        if (row.metric, row.reference) == (metric, reference) and row.extra in good
    ]
    draw_undecided(axes, [row.extra["s"] for row in rows], [row.value for row in rows], reference)


def _lines(
    points: Sequence[Judged], metric: str, kind: Kind
) -> dict[str, list[tuple[int, float, float]]]:
    """Return (s, value, error) by reference; lines of generated images begin without noise."""
    own = {kind} if kind == "ground-truth" else {kind, "none"}
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for point in points:
        for row in point.rows if point.augment in own else ():
            if row.metric == metric:
                line = lines.setdefault(row.reference, [])
                line.append((point.s, row.value, row.uncertainty or 0.0))
    return {reference: sorted(line) for reference, line in lines.items()}
