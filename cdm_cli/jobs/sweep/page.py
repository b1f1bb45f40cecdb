"""`sweep/report.html`: what a sweep found, how surely, with pictures, costs and commands."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError, MissingError, WouldOverwriteError
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.jobs.sweep.applied import say_how_sure
from cdm_cli.jobs.sweep.choice import Judged, choose, conclude, entitle, name_point
from cdm_cli.jobs.sweep.front import place_points, say_front
from cdm_cli.jobs.sweep.over import Figure, Parent, draw_figures
from cdm_cli.jobs.sweep.plan import make_mark
from cdm_cli.jobs.sweep.race_file import RaceFile, read_race
from cdm_cli.jobs.sweep.race_page import tell_outcome, tell_race
from cdm_cli.jobs.sweep.race_table import ON
from cdm_cli.jobs.sweep.table import (
    PLOT,
    SweepFile,
    SweepTable,
    join_table,
    read_points,
    read_sweep,
)
from cdm_cli.metrics.table import MetricTable
from cdm_cli.names import REPORT
from cdm_cli.report import Report

RACED = re.compile(r" --(?:race|budget(?:-evals)? (?:'[^']*'|\S+))(?= |$)")
WITH_NOISE = (
    "Kinds of conditioning: truncated takes the state at s of the reverse pass that drew the "
    "low-resolution image, non-truncated noises the finished image to s, ground truth does so to "
    "real ones. At s = 0 there is no noise."
)


def write_report(out: Path, report: Report) -> None:
    """Write `report.html` into the directory of a sweep.

    A page of another subject stays as it is, and that is said.
    """
    try:
        page.write_page(out / REPORT, name_subject(out), make_page(out))
    except WouldOverwriteError as error:
        report.say(f"{error.what}: {error.kept}")


def name_subject(out: Path) -> str:
    """Return what the page of a sweep is of: its mark, whatever its directory is called."""
    return f"sweep {make_mark(read_sweep(out).identity)[:16]}"


def make_page(out: Path) -> bytes:
    """Return the page of a sweep as HTML; that of its race where no point has all of its images.

    Raises MissingError where nothing is judged yet.
    """
    file = _add_stage(read_sweep(out), out)
    mark = make_mark(file.identity)
    points, race, names = read_points(out, mark), read_race(out, mark), _name_inputs(file)
    raced = race is not None and bool(race.rounds)
    what = f"{names.get('stage', '')} on {names.get('lowres', '')}"
    if points:
        parts = [
            *_tell_sweep(out, file, points),
            *(_tell_race_beside(race) if race and raced else []),
        ]
        return page.page(f"Sweep of {what}", name_subject(out), *parts)
    if race and raced:
        return page.page(f"Race of {what}", name_subject(out), *_tell_race(file, race))
    raise MissingError(f"{out} has no judged point yet", next="the command that made it, again")


def _add_stage(file: SweepFile, out: Path) -> SweepFile:
    """Return the file of a sweep with its parents, which a race leaves to the stores of points."""
    if "stage" in _name_inputs(file):
        return file
    for path in sorted(out.glob("*-s*.h5")):
        with suppress(CdmError), open_store(path) as store:
            parents = (*file.parents, *list_parents(store.provenance))
            return file.model_copy(update={"parents": parents})
    return file


def _tell_race(file: SweepFile, race: RaceFile) -> Iterator[Html]:
    """Yield the sections of a race, with its command and that of the grid."""
    yield from tell_race(race, _list_inputs(file))
    yield page.section(
        "Commands",
        page.commands([race.command, RACED.sub("", race.command)]),
        page.paragraph(ON, "note"),
    )
    yield page.section("Where it comes from", *_tell_provenance(file))


def _tell_race_beside(race: RaceFile) -> list[Html]:
    """Return what a page of points with all of their images says of a race among them."""
    told = page.fold(tell_outcome(race), *tell_race(race, {}))
    return [page.section("A race of these points", told)]


def _tell_sweep(out: Path, file: SweepFile, points: Sequence[Judged]) -> Iterator[Html]:
    chosen = choose(points)
    table, placed = join_table(points, chosen), place_points(points)
    yield page.paragraph(conclude(points), "lead")
    yield page.paragraph(say_how_sure(chosen) + ".")
    yield page.paragraph(say_front(placed))
    yield page.section("What it is of", page.facts(_list_facts(file, points)))
    yield page.section(
        "Numbers",
        page.picture(page.read_picture(out / PLOT), entitle(points)),
        page.paragraph(WITH_NOISE, "note"),
        _make_table(SweepTable(table, chosen.reference, placed), table),
    )
    drawn = draw_figures(out, points, chosen.axes, _find_inputs(file))
    yield page.section("The same images", *map(_show_figure, drawn))
    yield page.section("What it cost", _tell_costs(out, points))
    yield page.section(
        "Commands",
        page.commands([file.command, f"{file.command.replace(' --apply', '')} --apply"]),
        page.fold("what made each point", page.commands(_read_command(out, one) for one in points)),
    )
    yield page.section("Where it comes from", *_tell_provenance(file))


def _name_inputs(file: SweepFile) -> dict[str, str]:
    """Return what a sweep was made from, by role."""
    return {parent.get("role", ""): parent.get("name", "") for parent in reversed(file.parents)}


def _list_inputs(file: SweepFile) -> dict[str, object]:
    names = _name_inputs(file)
    roles = {"stage": "stage", "low-resolution images": "lowres", "real images": "ref"}
    return {told: names.get(role) for told, role in roles.items()}


def _list_facts(file: SweepFile, points: Sequence[Judged]) -> dict[str, object]:
    kind = points[0].rows[0].convention
    return {
        **_list_inputs(file),
        "judge": f"{kind.extractor}, {kind.resolution}×{kind.resolution}",
        "images of each point": ", ".join(
            map(str, sorted({row.convention.num for point in points for row in point.rows}))
        ),
        "points": len(points),
    }


def _make_table(shown: SweepTable, table: MetricTable) -> Html:
    """Return the table, the points that are as good as the best set off."""
    lines = shown.lines()
    good = [line[-1] in ("best", "as good as the best") for line in lines]
    return page.join([page.table(shown.header(), lines, good), page.notes(table.gather_notes())])


def _show_figure(figure: Figure) -> Html:
    return page.picture(figure.png, figure.caption) or page.paragraph(figure.caption, "note")


def _find_inputs(file: SweepFile) -> dict[str, Parent]:
    """Return the stores that points were upsampled from, as far as they are named."""
    named = {parent.get("digest"): parent.get("name", "") for parent in file.parents}
    digests = {role: str(file.identity.get(role)) for role in ("lowres", "ref")}
    return {role: Parent(named.get(digest, ""), digest) for role, digest in digests.items()}


def _tell_costs(out: Path, points: Sequence[Judged]) -> Html:
    lines: list[list[object]] = []
    for point in points:
        store, num = out / Path(point.samples).name, point.rows[0].convention.num
        each = point.evaluations
        size = f"{store.stat().st_size / 1e6:.1f}" if store.is_file() else ""
        lines.append([name_point(point.labels), num, each or "", each * num if each else "", size])
    known = [point for point in points if point.evaluations]
    total = sum((point.evaluations or 0) * point.rows[0].convention.num for point in known)
    header = ["point", "images", "evaluations of each", "in all", "MB on disk"]
    told = f"{total:,} evaluations of the network in all" if len(known) == len(points) else ""
    return page.join([page.paragraph(told), page.table(header, lines)])


def _read_command(out: Path, point: Judged) -> str:
    """Return the command that makes the images of a point."""
    try:
        with open_store(out / Path(point.samples).name) as found:
            return str(found.provenance.get("command", ""))
    except CdmError:
        return ""


def _tell_provenance(file: SweepFile) -> Iterator[Html]:
    yield page.parents(list_parents({"parents": list(file.parents)}))
    convention: Mapping[str, Any] = asdict(file.convention) if file.convention else {}
    yield page.fold("how images became numbers", page.facts(convention))
    yield page.fold("what must be equal", page.facts(file.identity))
    yield page.facts({"cdm": file.cdm_version})
