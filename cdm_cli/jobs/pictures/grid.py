"""`cdm grid`: images of a store in rows and columns, or the same ids of several side by side."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdm_cli.data.store import open_store
from cdm_cli.jobs.pictures.beside import lay_side_by_side, name_column
from cdm_cli.jobs.pictures.shown import (
    ShownImages,
    choose_shown,
    name_classes,
    take_first_of_classes,
)
from cdm_cli.jobs.pictures.tiles import Sheet, SheetRows, choose_scale, draw_sheet, write_png
from cdm_cli.options.files import GridOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

DEFAULT_NUM = 64
DEFAULT_IDS = 10  # of several stores


@dataclass(frozen=True)
class GridResult:
    """What was written. resolution: the largest that is shown."""

    out: Path
    resolution: int
    rows: int
    columns: int


def run(options: GridOptions, report: Report) -> GridResult:
    """Write the picture, images of one class in each row if per_class is given.

    Of several stores, each is a column, each row an id. Raises UsageError for a split, resolution
    or size that cannot be had, MissingError for a store without a finished image, MismatchError
    for stores that share no id, and WouldOverwriteError for an `out` of anything else.
    """
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(path)) for path in options.stores]
        shown = [choose_shown(store, options.split, options.resolution, report) for store in stores]
        resolution = max(one.resolution for one in shown)
        sheet = (
            lay_out_one(shown[0], options) if len(shown) == 1 else _lay_out_several(shown, options)
        )
        picture = draw_sheet(sheet, options.scale or choose_scale(resolution))
    of = " and ".join(path.resolve().name for path in options.stores)
    write_png(options.out, picture, of)
    return GridResult(options.out, resolution, len(sheet.rows), sheet.columns)


def _lay_out_several(shown: list[ShownImages], options: GridOptions) -> Sheet:
    heads = [name_column(one.store, one.resolution) for one in shown]
    return lay_side_by_side(
        shown, heads, num=options.num or DEFAULT_IDS, per_class=options.per_class
    )


def lay_out_one(shown: ShownImages, options: GridOptions) -> Sheet:
    """Lay out the images of one store."""
    rows = (
        _group_by_class(shown, options.per_class)
        if options.per_class
        else _choose_rows(shown, options)
    )
    places = np.concatenate([places for _, places in rows])
    part, side = shown.part, shown.resolution
    title = (
        f"{shown.store.path.name}: {len(places)} of {format_count(part.num, 'image')}, "
        f"{side}×{side}"
    )
    return Sheet(shown.read_tiles(places), rows, title)


def _choose_rows(shown: ShownImages, options: GridOptions) -> SheetRows:
    """Lay out the first images; of prepared data, which is sorted by class, a spread.

    A row is named after the class of its images, or the first and the last of their ids.
    """
    places = shown.places
    num = min(options.num or DEFAULT_NUM, len(places))
    if shown.store.kind == "prepared":
        places = places[np.linspace(0, len(places) - 1, num).round().astype(np.int64)]
    columns = options.columns or math.ceil(math.sqrt(num))
    starts = range(0, num, columns)
    rows = [places[start : start + columns][: num - start] for start in starts]
    return [(_name_row(shown, row), row) for row in rows]


def _name_row(shown: ShownImages, row: np.ndarray) -> str:
    names = name_classes(shown, row)
    if len(set(names)) == 1:
        return names[0]
    first, last = shown.part.ids[row[:1]].item(), shown.part.ids[row[-1:]].item()
    return f"{first}–{last}"


def _group_by_class(shown: ShownImages, per_class: int) -> SheetRows:
    labels = np.asarray(shown.part.labels[shown.places])
    rows = [shown.places[chosen] for chosen in take_first_of_classes(labels, per_class)]
    return [(name_classes(shown, row)[0], row) for row in rows]
