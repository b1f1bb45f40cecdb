"""The picture that a demo ends with: what went in, what came out and what is real, by class."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from cdm_cli.data.store import open_store
from cdm_cli.jobs.demo.enlarging import enlarge_images as bicubic
from cdm_cli.jobs.pictures.shown import ShownImages, name_classes
from cdm_cli.jobs.pictures.tiles import Sheet, choose_scale, draw_sheet, enlarge

NEW = 2  # new images of each class
REAL = ("low-resolution\ninput", "merely\nenlarged", "upsampled", "real")
DRAWN = ("drawn by the\nbase model", "merely\nenlarged", "upsampled")
TITLE = "left: real images made small, and upsampled; right: new ones, drawn of a class"


def draw_picture(data: Path, again: Path, lowres: Path, samples: Path) -> Image.Image:
    """Draw a row for each class: a real image that was upsampled, then new images.

    data: the prepared store. again: its val images made small and upsampled. lowres, samples: new
    images of low and of high resolution. Raises what `open_store` raises.
    """
    with ExitStack() as stack:

        def open_part(path: Path, split: str, *, low: bool = False) -> ShownImages:
            store = stack.enter_context(open_store(path))
            part = store.parts[split]
            return ShownImages(store, part, part.resolutions[0 if low else -1], np.arange(part.num))

        real = open_part(data, "val")
        known = [open_part(data, "val", low=True), open_part(again, ""), real]
        drawn = [open_part(lowres, "", low=True), open_part(samples, "")]
        rows = [
            (_take_first_of(known, name, 1), _take_first_of(drawn, name, NEW))
            for name in real.store.classes
        ]
        return draw_sheet(
            _lay_out(rows, real.store.classes, real.resolution), choose_scale(real.resolution)
        )


def _take_first_of(shown: Sequence[ShownImages], name: str, num: int) -> list[list[np.ndarray]]:
    """Return the first images of a class that are in every store, each as it is in all of them."""
    made = shown[1]
    of_class = np.array(name_classes(made, made.places)) == name
    ids = np.asarray(made.part.ids)[of_class][:num].tolist()
    return [[_read_image(one, id) for one in shown] for id in ids]


def _read_image(shown: ShownImages, id: int) -> np.ndarray:
    place = np.flatnonzero(np.asarray(shown.part.ids) == id)
    return shown.read_tiles(place)[int(place[0])]


Row = tuple[list[list[np.ndarray]], list[list[np.ndarray]]]


def _lay_out(rows: Sequence[Row], names: Sequence[str], side: int) -> Sheet:
    """Lay the rows out, low-resolution images as large as the others, with a gap in between."""
    gap = [np.full((side, side, 3), 255, np.uint8)]
    lines = [
        [tile for each in known for tile in _lay_beside(each, side)]
        + [tile for each in drawn for tile in [*gap, *_lay_beside(each, side)]]
        for known, drawn in rows
    ]
    width = max(map(len, lines))
    places = [np.arange(row * width, row * width + len(line)) for row, line in enumerate(lines)]
    tiles = {
        int(place): tile
        for where, line in zip(places, lines, strict=True)
        for place, tile in zip(where, line, strict=True)
    }
    heads = [*REAL, *(head for _ in range(NEW) for head in (" ", *DRAWN))]
    return Sheet(tiles, list(zip(names, places, strict=True)), TITLE, tuple(heads[:width]))


def _lay_beside(images: Sequence[np.ndarray], side: int) -> list[np.ndarray]:
    """Return an input as it is, merely enlarged, and what else there is of it."""
    low, *rest = images
    return [enlarge(low, side), bicubic(low[None], side)[0], *rest]
