"""The picture of a sweep: FID and IS over one axis, as Table 3 of the paper, and what FID costs.

The axis is s where points differ in it. A line is drawn for each kind of augmentation and each
combination of values on the others. A ring is around each generated point that is as good as the
best, a grey band around all of these. One legend stands below the panels, where it covers no line.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.judging.band import draw_undecided
from cdm_cli.jobs.pictures.figure import encode_figure, make_figure
from cdm_cli.jobs.sweep.choice import (
    Chosen,
    Judged,
    compare_points,
    entitle,
    name_value,
    select_generated,
)
from cdm_cli.jobs.sweep.front import Placed, place_points
from cdm_cli.jobs.sweep.point import REAL, Kind, spell_value
from cdm_cli.metrics.comparisons import SPOKEN
from cdm_cli.metrics.table import MetricRow

COLOURS: dict[Kind, str] = {
    "truncated": "tab:blue", "non-truncated": "tab:orange", "ground-truth": "tab:green",
    "ground-truth-train": "tab:red", "none": "black",
}  # fmt: skip
MARKS = "os^v"  # one for each reference
STYLES = "-", ":", "-."  # where there are more lines than the ten colours
DRAWN = ("fid", "is")
LETTER, MARK, LINE = 0.07, 0.6, 0.2  # of a legend, in inches


def write_plot(path: Path, points: Sequence[Judged], chosen: Chosen) -> None:
    """Draw FID against every reference, IS where the judge gives it, and FID over its cost."""
    there = {row.metric for point in points for row in point.rows}
    metrics, placed = [name for name in DRAWN if name in there], place_points(points)
    panels = len(metrics) + bool(placed)
    figure = make_figure(6 * panels, 4.5)
    along = Along.of(points)
    for place, metric in enumerate(metrics, 1):
        axes = figure.add_subplot(1, panels, place)
        _draw(axes, points, metric, along)
        _draw_undecided(axes, points, metric, chosen.reference if metric == "fid" else "", along)
        along.label(axes)
        axes.set_ylabel(f"{SPOKEN[metric]} ({points[0].rows[0].convention.extractor})")
    if placed:
        _draw_front(figure.add_subplot(1, panels, panels), placed)
    figure.suptitle(entitle(points))
    _explain(figure, [figure.axes[0], *figure.axes[len(metrics) :]])
    write_file_atomically(path, encode_figure(figure))


def _explain(figure: Figure, panels: Sequence[Any]) -> None:
    """Write the legend of some panels below all of them, and make room for it."""
    named = [one for axes in panels for one in zip(*axes.get_legend_handles_labels(), strict=True)]
    longest = max(len(label) for _, label in named)
    columns = max(1, int(figure.get_figwidth() / (MARK + LETTER * longest)))
    lines = math.ceil(len(named) / columns)
    figure.set_figheight(figure.get_figheight() + LINE * lines)
    figure.legend(
        *zip(*named, strict=True),
        loc="outside lower center", ncols=columns, fontsize="small", frameon=False,
    )  # fmt: skip


class Along(NamedTuple):
    """The axis over which numbers are drawn. words: its values in order, () if all are numbers."""

    axis: str
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, points: Sequence[Judged]) -> "Along":
        """Choose s where points differ in it, else the first axis of several numbers or values."""
        values: dict[str, dict[Any, None]] = {}
        for point in points:
            for axis, value in point.labels.items():
                values.setdefault(axis, {})[value] = None
        several = [axis for axis in values if axis != "augment" and len(values[axis]) > 1]
        numbers = [axis for axis in several if all(map(_is_number, values[axis]))]
        axis = next(iter([*numbers, *several]), "s")
        words = () if axis in [*numbers, "s"] else tuple(map(spell_value, values[axis]))
        return cls(axis, words)

    def find_place(self, labels: Mapping[str, Any]) -> float:
        """Return where a point is drawn along the axis: its number, or the place of its word."""
        value = labels[self.axis]
        return self.words.index(spell_value(value)) if self.words else value

    def label(self, axes: Any) -> None:
        """Write the name of the axis under a panel, and its words at their places."""
        axes.set_xlabel(self.axis.replace("_", " "))
        if self.words:
            axes.set_xticks(range(len(self.words)), self.words)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Line(NamedTuple):
    """What the points of one line share. others: their values on the axes it does not run along."""

    kind: Kind
    others: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join([self.kind, *self.others])


def _draw(axes: Any, points: Sequence[Judged], metric: str, along: Along) -> None:
    """Draw a line for each kind, each combination of other values, and each reference."""
    lines = _group_lines(points, along)
    single = len({line.others for line in lines}) == 1
    for number, (line, there) in enumerate(lines.items()):
        rows = [row for point in there for row in point.rows if row.metric == metric]
        colour = COLOURS[line.kind] if single else f"C{number}"
        style = "--" if line.kind in REAL.values() else STYLES[number // 10 % len(STYLES)]
        references = dict.fromkeys(row.reference for row in rows)
        for mark, reference in zip(MARKS, references, strict=False):
            of_it = [row for row in rows if row.reference == reference]
            at, value, error = zip(*sorted(_make_dot(row, along) for row in of_it), strict=True)
            axes.errorbar(
                at, value, yerr=error, capsize=2, color=colour, marker=mark,
                linestyle=style,
                markerfacecolor=colour if mark == MARKS[0] else "white",
                label=f"{line} vs {reference}" if reference else f"{line}",
            )  # fmt: skip


def _make_dot(row: MetricRow, along: Along) -> tuple[float, float, float]:
    return along.find_place(row.extra), row.value, row.uncertainty or 0.0


def _group_lines(points: Sequence[Judged], along: Along) -> dict[Line, list[Judged]]:
    """Return the points of each line; over s, those of generated images begin without noise."""
    lines: dict[Line, list[Judged]] = {}
    for point in points:
        lines.setdefault(Line(point.augment, _name_others(point, along)), []).append(point)
    for line in [line for line in lines if line.kind == "none" and along.axis == "s"]:
        sharing = [
            other for other in lines
            if other.others == line.others and other.kind in ("truncated", "non-truncated")
        ]  # fmt: skip
        for other in sharing:
            lines[other] += lines[line]
        if sharing:
            del lines[line]
    return lines


def _name_others(point: Judged, along: Along) -> tuple[str, ...]:
    """Return in words the values of a point on the axes that a line does not go along."""
    axes = {axis: value for axis, value in point.labels.items() if axis != "augment"}
    return tuple(
        name_value(axis, value) for axis, value in axes.items() if axis not in ("s", along.axis)
    )


def _draw_undecided(
    axes: Any, points: Sequence[Judged], metric: str, reference: str, along: Along
) -> None:
    """Show which generated points are as good as the best by a metric and reference."""
    good = [
        one.point
        for one in compare_points(select_generated(points))
        if (one.metric, one.reference) == (metric, reference) and one.verdict != "worse"
    ]
    rows = [
        row
        for point in points
        for row in point.rows
        if (row.metric, row.reference) == (metric, reference) and row.extra in good
    ]
    at, values = [along.find_place(row.extra) for row in rows], [row.value for row in rows]
    draw_undecided(axes, at, values, reference)


def _draw_front(axes: Any, placed: Sequence[Placed]) -> None:
    """Draw FID over evaluations of one image: the front, its lowest points joined, and the rest."""
    for on_front, colour, label in ((True, "tab:blue", "on the front"), (False, "0.6", "beaten")):
        here = [one for one in placed if one.on_front == on_front]
        if not here:
            continue
        axes.errorbar(
            [one.evaluations for one in here], [one.value for one in here],
            yerr=[one.uncertainty or 0 for one in here],
            fmt="o", capsize=2, color=colour, label=label,
        )  # fmt: skip
    lowest = {one.evaluations: one.value for one in reversed(placed) if one.on_front}
    at = sorted(lowest)
    axes.plot(at, [lowest[cost] for cost in at], "-", color="tab:blue")
    costs = sorted({one.evaluations for one in placed})
    axes.set_xscale("log")
    axes.set_xticks(costs, map(str, costs), minor=False)
    axes.minorticks_off()
    axes.set_xlabel("network evaluations of one image")
    axes.set_ylabel(f"FID vs {placed[0].reference}")
