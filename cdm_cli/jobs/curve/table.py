"""The numbers of `cdm eval checkpoints`: kept point by point, as JSON, CSV and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import read_settings, write_settings
from cdm_cli.config import StageConfig
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.judging.band import draw_undecided
from cdm_cli.jobs.pictures.figure import encode_figure, label_steps, make_figure
from cdm_cli.jobs.runtime.identity import (
    UNRECORDED,
    advise_remaking,
    check_same,
    complete,
    has_begun,
    lacks_sampling,
    other_job_error,
)
from cdm_cli.jobs.runtime.same_stage import update_stage_digest
from cdm_cli.metrics.comparisons import RankedRows, compare_family, compare_rows, explain_left_out
from cdm_cli.metrics.table import Comparison, MetricRow, MetricTable
from cdm_cli.names import CURVE_FILE
from cdm_cli.settings import Settings

CSV, PLOT = "curve.csv", "curve.png"
LIMIT = 2**26
GUESSED = (
    "some points were judged by a version that did not record --restart-from and --schedule: they "
    "are taken to be sampled without; another -o judges them anew"
)


class SavedWeights(Settings):
    """Weights of a stage that can be judged. sha256: what their file says of its contents."""

    weights: str
    step: int
    sha256: str


class CurvePoint(Settings):
    """What one state scored: FID against every reference; states are compared by the first."""

    saved: SavedWeights
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...]


class CurveFile(Settings):
    """The contents of `curve.json`. identity: what all points share."""

    schema_version: Literal[1] = 1
    cdm_version: str = __version__
    identity: dict[str, Any]
    points: tuple[CurvePoint, ...] = ()
    conclusion: str = ""
    comparisons: tuple[Comparison, ...] = ()


def read_curve(
    out: Path, identity: Mapping[str, Any], config: StageConfig, *, whole: bool = True
) -> list[CurvePoint]:
    """Return the points of a directory, none where there is no curve yet.

    whole: whether the identity is all of it, not only what headers tell. Raises
    WouldOverwriteError where the directory is of another curve.
    """
    if not has_begun(out, CURVE_FILE, (CSV, PLOT), "curve"):
        return []
    again = advise_remaking(out, CURVE_FILE, (CSV, PLOT))
    file = read_settings(CurveFile, out / CURVE_FILE, LIMIT, next=again)
    _check_recorded(out, file.identity, identity)
    there = complete(update_stage_digest(file.identity, config), identity)
    if not whole:
        there = {name: there.get(name) for name in identity}
    check_same(out, "curve", there, identity)
    if not lacks_sampling(file.identity):
        return [*file.points]
    return [point.model_copy(update={"notes": (*point.notes, GUESSED)}) for point in file.points]


def _check_recorded(out: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise WouldOverwriteError where an old curve cannot say if it was sampled as asked now."""
    asked = [name for name in UNRECORDED if here.get(name) is not None]
    if asked and lacks_sampling(there):
        raise other_job_error(
            out,
            f"{out} is of a version that did not record {UNRECORDED[asked[0]]}: it counts as "
            "sampled without",
        )


def make_point(saved: SavedWeights, table: MetricTable) -> CurvePoint:
    """Return the point of one state; its rows say which state they are of."""
    extra = {"step": saved.step, "weights": saved.weights}
    rows = tuple(replace(row, extra=extra) for row in table.rows if row.metric == "fid")
    return CurvePoint(saved=saved, rows=rows, notes=tuple(table.notes))


def add_point(points: Sequence[CurvePoint], point: CurvePoint) -> list[CurvePoint]:
    """Add a point, in the order of steps; one of the same name was of earlier weights."""
    others = [other for other in points if other.saved.weights != point.saved.weights]
    return sorted([*others, point], key=lambda point: (point.saved.step, point.saved.weights))


def compare_points(points: Sequence[CurvePoint]) -> RankedRows:
    """Compare the numbers that states are compared by; all are of the same noise."""
    return compare_rows([point.rows[0] for point in points])


def name_point(point: Mapping[str, Any]) -> str:
    """Return what a person calls a point, as --weights does."""
    return str(point["weights"])


def make_table(points: Sequence[CurvePoint]) -> MetricTable:
    """Return the rows of all points, and a verdict on each against every reference."""
    rows = [row for point in points for row in point.rows]
    notes = [*explain_left_out(rows), *compare_points(points).say_what_is_told()]
    table = MetricTable(comparisons=compare_family(rows), notes=notes)
    for point in points:
        table.extend(point.rows)
        for note in point.notes:
            table.note(note)
    return table


def write_points(out: Path, identity: Mapping[str, Any], points: Sequence[CurvePoint]) -> None:
    """Write `curve.json`."""
    file = CurveFile(
        identity=dict(identity),
        points=tuple(points),
        conclusion=compare_points(points).conclude(name_point),
        comparisons=tuple(make_table(points).comparisons),
    )
    write_settings(out / CURVE_FILE, file)


def write_shown(out: Path, points: Sequence[CurvePoint]) -> None:
    """Write `curve.csv` and `curve.png`."""
    write_file_atomically(out / CSV, make_table(points).to_csv().encode())
    write_file_atomically(out / PLOT, draw_curve(points))


def draw_curve(points: Sequence[CurvePoint]) -> bytes:
    """Draw FID against the step, a line for each reference, as a PNG."""
    figure = make_figure(6.5, 4.2)
    axes = figure.add_subplot(1, 1, 1)
    for place, reference in enumerate(dict.fromkeys(r.reference for p in points for r in p.rows)):
        rows = [(p.saved.step, r) for p in points for r in p.rows if r.reference == reference]
        axes.errorbar(
            [step for step, _ in rows], [row.value for _, row in rows],
            yerr=[row.uncertainty or 0 for _, row in rows],
            marker="os^v"[place % 4], capsize=2, label=f"against {reference}",
        )  # fmt: skip
    _draw_undecided(axes, points)
    axes.set_title(compare_points(points).entitle(name_point))
    label_steps(axes)
    axes.set_ylabel(f"FID of {points[0].rows[0].convention.num} samples")
    axes.legend(fontsize="small")
    return encode_figure(figure)


def _draw_undecided(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Show which are as good as the best by the number that states are compared by."""
    good = [one.point for one in compare_points(points).good]
    there = [p for p in points if p.rows[0].extra in good]
    steps, values = [p.saved.step for p in there], [p.rows[0].value for p in there]
    draw_undecided(axes, steps, values, points[0].rows[0].reference)
