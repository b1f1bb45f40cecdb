"""What a page says of a store: its images, how they were made, from what, and how good they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.judging.kept import find_tables
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.grid import sheet_of
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.pictures.shown import choose_shown
from cdm_cli.jobs.pictures.tiles import draw_sheet, png_bytes, readable_scale
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sampling.parents import parent_rows
from cdm_cli.names import RUNS
from cdm_cli.options.files import GridOptions

PER_CLASS, FEW = 8, 20  # images in a row, and classes that have one each
CLASSES = 30  # names that are listed


def store_parts(store: Store) -> Iterator[Html]:
    """Yield the sections of a store."""
    yield page.paragraph(_sentence(store), "lead")
    yield page.facts(_facts(store))
    yield page.section("Images", _images(store))
    yield page.section("Numbers", *_numbers(store))
    yield page.section("Where it comes from", *_provenance(store))


def _sentence(store: Store) -> str:
    what = "prepared images" if store.kind == "prepared" else "samples"
    num = sum(part.num for part in store.parts.values())
    sides = sorted({side for part in store.parts.values() for side in part.resolutions})
    state = "" if store.finished else ", of which some are still to be made"
    return f"{num} {what} at {', '.join(f'{side}×{side}' for side in sides)}{state}."


def _facts(store: Store) -> dict[str, object]:
    parts = {name: part for name, part in store.parts.items() if name}
    kept = sorted({s for part in store.parts.values() for s in part.z_times})
    more = ", …" if len(store.classes) > CLASSES else ""
    return {
        **{name: f"{part.num} images" for name, part in parts.items()},
        "z_s at s": ", ".join(map(str, kept)),
        "classes": f"{len(store.classes)}: {', '.join(store.classes[:CLASSES])}{more}",
        "MB on disk": f"{store.path.stat().st_size / 1e6:.1f}",
        "digest": store.digest,
    }


def _images(store: Store) -> Html:
    """Return images of each class in a row, or of many classes the first."""
    try:
        shown = choose_shown(store, None, None, Silent())
        asked = GridOptions(per_class=PER_CLASS if len(store.classes) <= FEW else None)
        sheet = sheet_of(shown, asked)
        picture = draw_sheet(sheet, readable_scale(shown.resolution))
    except CdmError as error:
        return page.paragraph(f"no picture: {error.what}", "note")
    return page.picture(png_bytes(picture), sheet.title)


def _numbers(store: Store) -> Iterator[Html]:
    """Yield the tables beside the store that are of its images."""
    for path, table in find_tables(store.path, store.digest):
        yield page.paragraph(path.name)
        yield page.table(table.header(), table.lines())
        yield page.notes(table.all_notes())


def _provenance(store: Store) -> Iterator[Html]:
    said: dict[str, Any] = dict(store.provenance)
    yield page.paragraph(said.get("note", ""))
    yield page.commands([str(said.get("command", ""))])
    rows = parent_rows(said, Path(RUNS), [store.path.parent, Path()])
    lines = [[row["role"], row["name"], row["found"], row["digest"]] for row in rows]
    yield page.table(["role", "name", "found", "digest"], lines)
    for title, name in [("how it was sampled", "identity"), ("how it was computed", "numerics")]:
        told = said.get(name)
        yield page.fold(title, page.facts(told) if isinstance(told, dict) else Html(""))
    yield page.facts({"cdm": said.get("cdm")})
