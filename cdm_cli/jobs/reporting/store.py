"""What a page says of a store: its images, how they were made, from what, and how good they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.judging.kept import find_tables
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.grid import lay_out_one
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.pictures.shown import choose_shown
from cdm_cli.jobs.pictures.tiles import choose_scale, draw_sheet, encode_png
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sampling.parents import find_parents
from cdm_cli.names import RUNS
from cdm_cli.options.files import GridOptions
from cdm_cli.units import format_count

PER_CLASS, FEW = 8, 20  # images in a row, and classes that have one each
CLASSES = 30  # names that are listed


def tell_store(store: Store) -> Iterator[Html]:
    """Yield the sections of a store."""
    yield page.paragraph(_say_what_it_is(store), "lead")
    yield page.facts(_list_facts(store))
    yield page.section("Images", _show_images(store))
    yield page.section("Numbers", *_show_numbers(store))
    yield page.section("Where it comes from", *_tell_provenance(store))


def _say_what_it_is(store: Store) -> str:
    what = "prepared images" if store.kind == "prepared" else "samples"
    num = sum(part.num for part in store.parts.values())
    sides = sorted({side for part in store.parts.values() for side in part.resolutions})
    state = "" if store.finished else ", of which some are still to be made"
    return f"{num} {what} at {', '.join(f'{side}×{side}' for side in sides)}{state}."


def _list_facts(store: Store) -> dict[str, object]:
    parts = {name: part for name, part in store.parts.items() if name}
    kept = sorted({s for part in store.parts.values() for s in part.z_times})
    more = ", …" if len(store.classes) > CLASSES else ""
    return {
        **{name: format_count(part.num, "image") for name, part in parts.items()},
        "z_s at s": ", ".join(map(str, kept)),
        "classes": f"{len(store.classes)}: {', '.join(store.classes[:CLASSES])}{more}",
        "MB on disk": f"{store.path.stat().st_size / 1e6:.1f}",
        "digest": store.digest,
    }


def _show_images(store: Store) -> Html:
    """Return images of each class in a row, or of many classes the first."""
    try:
        shown = choose_shown(store, None, None, Silent())
        asked = GridOptions(per_class=PER_CLASS if len(store.classes) <= FEW else None)
        sheet = lay_out_one(shown, asked)
        picture = draw_sheet(sheet, choose_scale(shown.resolution))
    except CdmError as error:
        return page.paragraph(f"no picture: {error.what}", "note")
    return page.picture(encode_png(picture), sheet.title)


def _show_numbers(store: Store) -> Iterator[Html]:
    """Yield the tables beside the store that are of its images."""
    for path, table in find_tables(store.path, store.digest):
        yield page.paragraph(path.name)
        yield page.table(table.header(), table.lines())
        yield page.notes(table.gather_notes())


def _tell_provenance(store: Store) -> Iterator[Html]:
    said: dict[str, Any] = dict(store.provenance)
    yield page.paragraph(said.get("note", ""))
    yield page.commands([str(said.get("command", ""))])
    rows = find_parents(said, Path(RUNS), [store.path.parent, Path()])
    lines = [[row["role"], row["name"], row["found"], row["digest"]] for row in rows]
    yield page.table(["role", "name", "found", "digest"], lines)
    for title, name in [("how it was sampled", "identity"), ("how it was computed", "numerics")]:
        told = said.get(name)
        yield page.fold(title, page.facts(told) if isinstance(told, dict) else Html(""))
    yield page.facts({"cdm": said.get("cdm")})
