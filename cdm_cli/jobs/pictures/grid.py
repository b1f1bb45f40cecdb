"""Images of a store in rows and columns, as one PNG."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cdm_cli.data.durable import write_file_atomically
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import MissingError, UsageError, WouldOverwriteError
from cdm_cli.jobs.sampling.rows import part_of, tell_part
from cdm_cli.options.files import GridOptions
from cdm_cli.report import Report

DEFAULT_NUM = 64
READABLE = 64  # pixels that the side of a shown image should have
GAP = 2
LIMIT = 2**26  # pixels of a picture that every viewer still opens
PAPER, INK = 255, 0


@dataclass(frozen=True)
class GridResult:
    """What was written."""

    out: Path
    resolution: int
    rows: int
    columns: int


def run(options: GridOptions, report: Report) -> GridResult:
    """Write the picture, images of one class in each row if per_class is given.

    Raises UsageError for a split, resolution or size that cannot be had, MissingError for a
    store without a finished image, and WouldOverwriteError for an `out` with other contents.
    """
    with open_store(options.store) as store:
        _, part = part_of(store, options.split)
        tell_part(store, options.split, report)
        resolution = _resolution(part, options, store)
        places = _finished(part, store)
        if options.per_class:
            labels = np.asarray(part.labels[places])
            rows = _rows_by_class(places, labels, options.per_class, store.classes)
        else:
            rows = _rows(places, options, spread=store.kind == "prepared")
        columns = max(len(row) for _, row in rows)
        scale = options.scale or max(1, READABLE // resolution)
        _check_size(len(rows), columns, resolution * scale)
        picture = draw_grid(_tiles(part, resolution, rows), rows, scale)
    write_png(options.out, picture)
    return GridResult(options.out, resolution, len(rows), columns)


def _resolution(part: Part, options: GridOptions, store: Store) -> int:
    resolution = options.resolution or max(part.resolutions)
    if resolution not in part.resolutions:
        has = ", ".join(map(str, part.resolutions))
        raise UsageError(f"--resolution {resolution}: {store.path} has {has}", next="one of them")
    return resolution


def _finished(part: Part, store: Store) -> np.ndarray:
    """Return the places of the images that are there."""
    blocks = (part.block_range(b) for b in range(part.num_blocks) if part.done(b))
    done = [np.arange(block.start, block.stop) for block in blocks]
    if not done:
        raise MissingError(
            f"{store.path} has no finished image yet", next="run the command that makes it again"
        )
    return np.concatenate(done)


Rows = list[tuple[str, np.ndarray]]  # what stands left of a row, and the places of its images


def _rows(places: np.ndarray, options: GridOptions, *, spread: bool) -> Rows:
    """Lay out the first images; of prepared data, which is sorted by class, a spread."""
    num = min(options.num or DEFAULT_NUM, len(places))
    if spread:
        places = places[np.linspace(0, len(places) - 1, num).round().astype(np.int64)]
    columns = options.columns or math.ceil(math.sqrt(num))
    return [
        ("", places[start : start + columns][: num - start]) for start in range(0, num, columns)
    ]


def _rows_by_class(
    places: np.ndarray, labels: np.ndarray, per_class: int, classes: list[str]
) -> Rows:
    names = dict(enumerate(classes))
    return [
        (names.get(label, str(label)), places[labels == label][:per_class])
        for label in np.unique(labels).tolist()
    ]


def _tiles(part: Part, resolution: int, rows: Rows) -> dict[int, np.ndarray]:
    """Read the images of all rows, their blocks checked: place -> uint8 [H, W, C]."""
    wanted: dict[int, list[int]] = {}
    for place in np.concatenate([places for _, places in rows]).tolist():
        wanted.setdefault(place // part.block_size, []).append(place)
    tiles: dict[int, np.ndarray] = {}
    for block, places in wanted.items():
        images = part.read_checked(block)[f"images/{resolution}"]
        start = part.block_range(block).start
        tiles |= {place: images[place - start].copy() for place in places}
    return tiles


def _check_size(rows: int, columns: int, side: int) -> None:
    pixels = rows * columns * (side + GAP) ** 2
    if pixels > LIMIT:
        raise UsageError(
            f"the picture would have {pixels:.1e} pixels, the limit is {LIMIT:.1e}",
            kept="nothing was written",
            next="fewer images (--num, --per-class) or a smaller --scale",
        )


def draw_grid(tiles: Mapping[int, np.ndarray], rows: Rows, scale: int) -> Image.Image:
    """Draw the images uint8 [H, W, C] at the places of each row, each pixel scale wide."""
    height, width, channels = next(iter(tiles.values())).shape
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    margin, font = _margin([name for name, _ in rows])
    step = GAP + height * scale, GAP + width * scale
    columns = max(len(places) for _, places in rows)
    size = margin + columns * step[1] - GAP, len(rows) * step[0] - GAP
    picture = Image.new(mode, size, (PAPER,) * channels)
    draw = ImageDraw.Draw(picture)
    for row, (name, places) in enumerate(rows):
        middle = row * step[0] + height * scale // 2
        draw.text((GAP, middle), name, fill=_ink(channels), font=font, anchor="lm")
        for column, place in enumerate(places.tolist()):
            tile = tiles[place].repeat(scale, 0).repeat(scale, 1)
            picture.paste(
                Image.fromarray(tile[..., 0] if channels == 1 else tile, mode),
                (margin + column * step[1], row * step[0]),
            )
    return picture


def _ink(channels: int) -> tuple[int, ...]:
    return (INK,) * channels if channels in (1, 3) else (*(INK,) * (channels - 1), 255)


def _margin(names: list[str]) -> tuple[int, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Return the room that the longest name needs, and the font."""
    font = ImageFont.load_default()
    width = max(font.getlength(name) for name in names)
    return (math.ceil(width) + 3 * GAP if width else 0), font


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture."""
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture; one that is there already with the same bytes is left as it is."""
    encoded = png_bytes(picture)
    if not path.exists():
        write_file_atomically(path, encoded)
    elif not path.is_file() or path.read_bytes() != encoded:
        raise WouldOverwriteError(
            f"{path} exists and shows something else", kept="it is untouched", next="another -o"
        )
