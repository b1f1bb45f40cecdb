"""The numbers of a sweep: kept point by point, joined into one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import read_settings, write_settings
from cdm_cli.data.disk import make_directory
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.runtime.identity import (
    advise_remaking,
    check_same,
    has_begun,
    other_job_error,
)
from cdm_cli.jobs.runtime.same_stage import update_stage_digest
from cdm_cli.jobs.sweep.choice import (
    Chosen,
    Judged,
    choose,
    choose_of_each,
    compare_points,
    conclude,
    explain_verdicts,
    say_how_chosen,
)
from cdm_cli.jobs.sweep.front import Placed, place_points
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import KINDS, NAME, Point, check_images, spell_value
from cdm_cli.metrics.comparisons import name_subject
from cdm_cli.metrics.table import Comparison, Convention, MetricRow, MetricTable
from cdm_cli.names import RACE_FILE, REPORT, SWEEP_FILE
from cdm_cli.settings import Settings

LIMIT = 2**26
CSV, PLOT = "sweep.csv", "sweep.png"
OURS = (SWEEP_FILE, CSV, PLOT, REPORT, RACE_FILE)


class SweepFile(Settings):
    """The contents of `sweep.json`; without rows until the first point is judged."""

    schema_version: Literal[1] = 1
    cdm_version: str = __version__
    command: str
    identity: dict[str, Any]
    parents: tuple[dict[str, str], ...]
    chosen: Chosen | None = None
    best_of_each: tuple[Chosen, ...] = ()
    conclusion: str = ""
    comparisons: tuple[Comparison, ...] = ()
    pareto: tuple[Placed, ...] = ()
    convention: Convention | None = None
    rows: tuple[MetricRow, ...] = ()
    notes: tuple[str, ...] = ()


def take_recorded(sweep: Sweep) -> Sweep:
    """Return the sweep with the identity that its directory records, which marks its points.

    Raises WouldOverwriteError naming the first difference if the directory, or a point in it, is of
    another job.
    """
    if not has_begun(sweep.out, SWEEP_FILE, OURS, "sweep"):
        return sweep
    there = read_sweep(sweep.out).identity
    known = update_stage_digest(there, sweep.header.config)
    check_same(sweep.out, "sweep", known, sweep.identity)
    for point in sweep.points:
        if point.axes and point.judged.exists():
            decided = _read_point(point.judged).decided
            check_same(point.judged, "sampling", decided, point.decided)
    return replace(sweep, identity=there)


def keep(
    sweep: Sweep, point: Point, table: MetricTable, parents: Sequence[Mapping[str, str]]
) -> None:
    """Write the numbers of a point into its file, whole or not at all. Raises DiskError."""
    judged = Judged(
        sweep=sweep.mark,
        augment=point.augment,
        s=point.s,
        axes=dict(point.axes),
        decided=dict(point.decided),
        evaluations=point.work.chain.evaluations,
        samples=point.samples.name,
        parents=tuple(dict(parent) for parent in parents),
        rows=tuple(
            replace(row, extra=point.labels) for row in table.rows if row.metric != "fid_gap"
        ),
        notes=tuple(table.notes),
    )
    write_settings(point.judged, judged)


def read_sweep(out: Path) -> SweepFile:
    """Read `sweep.json`; raise BadInputError for a damaged one, which can be made again."""
    return read_settings(
        SweepFile, out / SWEEP_FILE, LIMIT, next=advise_remaking(out, SWEEP_FILE, OURS)
    )


def _read_point(path: Path) -> Judged:
    return read_settings(Judged, path, LIMIT, next=advise_remaking(path.parent, path.name))


def read_all_points(sweep: Sweep) -> list[Judged]:
    """Return every judged point of the directory, also those of earlier commands."""
    return read_points(sweep.out, sweep.mark)


def read_points(out: Path, mark: str) -> list[Judged]:
    """Return every judged point of a directory, by kind, s and the other axes.

    Raises WouldOverwriteError where one of them is of another sweep than that of the mark, or holds
    the numbers of another point, or of other images than its store holds.
    """
    names = sorted(path for path in out.iterdir() if NAME.fullmatch(path.name))
    found = [_read_point(path) for path in names]
    for path, judged in zip(names, found, strict=True):
        if judged.sweep != mark:
            raise other_job_error(out, f"{path} is of another sweep")
        if Path(judged.samples).stem != path.stem:
            raise other_job_error(
                out,
                f"{path} has the numbers of {judged.samples}",
                next=advise_remaking(out, path.name),
            )
        check_images(out / judged.samples, {row.convention.samples_digest for row in judged.rows})
    return sorted(found, key=_make_sort_key)


def _make_sort_key(judged: Judged) -> tuple[Any, ...]:
    """Return what orders points: by kind, s, and the other axes; a number before a word."""
    others = ((isinstance(value, str), value or 0) for value in judged.axes.values())
    return KINDS.index(judged.augment), judged.s, *others


@dataclass(frozen=True)
class SweepTable:
    """Table 3: one line for each point on a terminal, every row with its convention in JSON.

    The last column says how a point stands by FID against one reference; where points cost
    different numbers of evaluations, these and whether it is on the front are before it.
    """

    metrics: MetricTable
    reference: str
    placed: Sequence[Placed] = ()

    def header(self) -> list[str]:
        """Return the titles of the columns."""
        titles = [f"{metric} {reference}".strip() for metric, reference in self._list_columns()]
        labels = [label.replace("_", " ") for label in self.metrics.rows[0].extra]
        cost = ["evaluations", "front"] if self.placed else []
        return [*labels, *(cell for title in titles for cell in (title, "±")), "num", *cost,
                f"by {name_subject('fid', self.reference)}"]  # fmt: skip

    def lines(self) -> list[list[str]]:
        """Return one line of cells for each point."""
        points: dict[tuple[Any, ...], dict[tuple[str, str], MetricRow]] = {}
        for row in self.metrics.rows:
            point = tuple(row.extra.items())
            points.setdefault(point, {})[row.metric, row.reference] = row
        return [self._make_line(dict(point), rows) for point, rows in points.items()]

    def to_json(self) -> dict[str, Any]:
        """Return every row with its convention."""
        return self.metrics.to_json()

    def gather_notes(self) -> list[str]:
        """Return what a reader of the numbers must know."""
        return self.metrics.gather_notes()

    def _list_columns(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.metric, row.reference) for row in self.metrics.rows))

    def _make_line(
        self, point: dict[str, Any], rows: dict[tuple[str, str], MetricRow]
    ) -> list[str]:
        cells = [spell_value(value) for value in point.values()]
        for column in self._list_columns():
            row = rows.get(column)
            cells.append(f"{row.value:.5g}" if row else "")
            cells.append(f"{row.uncertainty:.2g}" if row and row.uncertainty is not None else "")
        num = str(next(iter(rows.values())).convention.num)
        one = self.metrics.find_comparison(rows["fid", self.reference])
        return [*cells, num, *self._tell_cost(point), str(one or "")]

    def _tell_cost(self, point: dict[str, Any]) -> list[str]:
        if not self.placed:
            return []
        here = next((one for one in self.placed if one.point == point), None)
        return [str(here.evaluations), "yes" if here.on_front else "no"] if here else ["", ""]


def join_table(points: Sequence[Judged], chosen: Chosen) -> MetricTable:
    """Return the rows of all points in one table, with how they compare; they may differ in num."""
    table = MetricTable(mixed=True)
    for point in points:
        table.extend(point.rows)
        for note in point.notes:
            table.note(note)
    table.comparisons.extend(compare_points(points))
    for note in explain_verdicts(points):
        table.note(note)
    table.note(say_how_chosen(chosen))
    return table


def write_start(sweep: Sweep, command: str) -> None:
    """Write `sweep.json` without numbers: from now on the directory is of this sweep."""
    make_directory(sweep.out)
    if not (sweep.out / SWEEP_FILE).exists():
        file = SweepFile(command=command, identity=sweep.identity, parents=sweep.parents)
        write_settings(sweep.out / SWEEP_FILE, file)


def write_all(sweep: Sweep, command: str, points: Sequence[Judged], table: MetricTable) -> None:
    """Write `sweep.json` and `sweep.csv`."""
    parents = [*sweep.parents, *(parent for point in points for parent in point.parents)]
    file = SweepFile(
        command=command,
        identity=sweep.identity,
        parents=tuple({tuple(parent.items()): parent for parent in parents}.values()),
        chosen=choose(points),
        best_of_each=choose_of_each(points),
        conclusion=conclude(points),
        comparisons=tuple(table.comparisons),
        pareto=place_points(points),
        convention=replace(table.rows[0].convention, samples_digest=""),
        rows=tuple(table.rows),
        notes=tuple(table.gather_notes()),
    )
    write_settings(sweep.out / SWEEP_FILE, file)
    write_file_atomically(sweep.out / CSV, table.to_csv().encode())
