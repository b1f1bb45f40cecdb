"""The numbers of a sweep: kept point by point, joined into one table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.config import Settings
from cdm_cli.data.durable import make_directory, write_file_atomically
from cdm_cli.jobs.runtime.identity import begun, check_same, refused
from cdm_cli.jobs.runtime.same_stage import with_known_stage
from cdm_cli.jobs.sweep.choice import (
    Chosen,
    Judged,
    best_of_each,
    choose,
    compared,
    concluded,
    unknown,
)
from cdm_cli.jobs.sweep.plan import KINDS, Kind, Point, Sweep
from cdm_cli.metrics.comparisons import subject
from cdm_cli.metrics.table import Comparison, Convention, MetricRow, MetricTable

LIMIT = 2**26
FILE = "sweep.json"
OURS = (FILE, "sweep.csv", "sweep.png")
NAME = re.compile(rf"(?:{'|'.join(KINDS)})-s\d+\.json")
CHOICE = (
    "s is chosen by FID against {reference}, on the images that are reported here: to publish a "
    "number, judge fresh ones (cdm sample, then cdm upsample --s {s}, with another --seed)"
)


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
    convention: Convention | None = None
    rows: tuple[MetricRow, ...] = ()
    notes: tuple[str, ...] = ()


def as_recorded(sweep: Sweep) -> Sweep:
    """Return the sweep with the identity that its directory records, which marks its points.

    Raises WouldOverwriteError naming the first difference if the directory is of another job.
    """
    if not begun(sweep.out, FILE, OURS, "sweep"):
        return sweep
    there = read_settings(SweepFile, sweep.out / FILE, LIMIT).identity
    known = with_known_stage(there, sweep.header.config)
    check_same(sweep.out, "sweep", known, sweep.identity)
    return replace(sweep, identity=there)


def keep(
    sweep: Sweep, point: Point, table: MetricTable, parents: Sequence[Mapping[str, str]]
) -> None:
    """Write the numbers of a point, whole or not at all."""
    extra = {"augment": point.augment, "s": point.s}
    judged = Judged(
        sweep=sweep.mark,
        augment=point.augment,
        s=point.s,
        samples=point.samples.name,
        parents=tuple(dict(parent) for parent in parents),
        rows=tuple(replace(row, extra=extra) for row in table.rows if row.metric != "fid_gap"),
        notes=tuple(table.notes),
    )
    write_file_atomically(point.judged, (judged.model_dump_json(indent=1) + "\n").encode())


def all_judged(sweep: Sweep) -> list[Judged]:
    """Return every judged point of the directory, those of earlier lists of s among them."""
    names = sorted(path for path in sweep.out.iterdir() if NAME.fullmatch(path.name))
    found = [read_settings(Judged, path, LIMIT) for path in names]
    for path, judged in zip(names, found, strict=True):
        if judged.sweep != sweep.mark:
            raise refused(f"{path} is of another sweep")
    return sorted(found, key=lambda judged: (KINDS.index(judged.augment), judged.s))


@dataclass(frozen=True)
class SweepTable:
    """Table 3: one line for each point on a terminal, every row with its convention in JSON.

    The last column says how a point stands by FID against one reference.
    """

    metrics: MetricTable
    reference: str

    def header(self) -> list[str]:
        """Return the titles of the columns."""
        titles = [f"{metric} {reference}".strip() for metric, reference in self._columns()]
        return ["augment", "s", *(cell for title in titles for cell in (title, "±")), "num",
                f"by {subject('fid', self.reference)}"]  # fmt: skip

    def lines(self) -> list[list[str]]:
        """Return one line of cells for each point."""
        points: dict[tuple[Kind, int], dict[tuple[str, str], MetricRow]] = {}
        for row in self.metrics.rows:
            point = row.extra["augment"], row.extra["s"]
            points.setdefault(point, {})[row.metric, row.reference] = row
        return [self._line(point, rows) for point, rows in points.items()]

    def to_json(self) -> dict[str, Any]:
        """Return every row with its convention."""
        return self.metrics.to_json()

    def all_notes(self) -> list[str]:
        """Return what a reader must know."""
        return self.metrics.all_notes()

    def _columns(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.metric, row.reference) for row in self.metrics.rows))

    def _line(self, point: tuple[Kind, int], rows: dict[tuple[str, str], MetricRow]) -> list[str]:
        cells = [point[0], str(point[1])]
        for column in self._columns():
            row = rows.get(column)
            cells.append(f"{row.value:.5g}" if row else "")
            cells.append(f"{row.uncertainty:.2g}" if row and row.uncertainty is not None else "")
        num = str(next(iter(rows.values())).convention.num)
        one = self.metrics.compared(rows["fid", self.reference])
        return [*cells, num, str(one or "")]


def joined_table(points: Sequence[Judged], chosen: Chosen) -> MetricTable:
    """Return the rows of all points, and how they compare; they may differ in num."""
    table = MetricTable(mixed=True)
    for point in points:
        table.extend(point.rows)
        for note in point.notes:
            table.note(note)
    table.comparisons.extend(compared(points))
    for note in unknown(points):
        table.note(note)
    table.note(CHOICE.format(reference=chosen.reference, s=chosen.s))
    return table


def write_start(sweep: Sweep, command: str) -> None:
    """Write `sweep.json` without numbers: from now on the directory is of this sweep."""
    make_directory(sweep.out)
    if not (sweep.out / FILE).exists():
        file = SweepFile(command=command, identity=sweep.identity, parents=sweep.parents)
        _write(sweep.out / FILE, file)


def write_all(sweep: Sweep, command: str, points: Sequence[Judged], table: MetricTable) -> None:
    """Write `sweep.json` and `sweep.csv`."""
    parents = [*sweep.parents, *(parent for point in points for parent in point.parents)]
    file = SweepFile(
        command=command,
        identity=sweep.identity,
        parents=tuple({tuple(parent.items()): parent for parent in parents}.values()),
        chosen=choose(points),
        best_of_each=best_of_each(points),
        conclusion=concluded(points),
        comparisons=tuple(table.comparisons),
        convention=replace(table.rows[0].convention, samples_digest=""),
        rows=tuple(table.rows),
        notes=tuple(table.all_notes()),
    )
    _write(sweep.out / FILE, file)
    write_file_atomically(sweep.out / "sweep.csv", table.to_csv().encode())


def _write(path: Path, file: SweepFile) -> None:
    write_file_atomically(path, (file.model_dump_json(indent=1) + "\n").encode())
