"""The picture of a sweep: FID and IS against s, as Table 3 of the paper."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.sweep.plan import KINDS, Kind
from cdm_cli.jobs.sweep.table import Chosen, Judged

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
        axes.axvline(chosen.s, color="0.6", linewidth=1, zorder=0)
        axes.set_xlabel("s")
        axes.set_ylabel({"fid": "FID", "is": "Inception Score"}[metric])
        axes.legend(fontsize="small")
    figure.subplots_adjust(0.15 / len(metrics), 0.12, 1 - 0.04 / len(metrics), 0.92, wspace=0.2)
    figure.suptitle(f"best: {chosen.augment}, s = {chosen.s} (FID vs {chosen.reference})")
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
