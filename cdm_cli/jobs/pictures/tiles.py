"""Images in rows and columns as one picture: names beside the rows, heads above the columns."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cdm_cli.data.durable import write_over_own
from cdm_cli.data.images import MODES, from_array
from cdm_cli.errors import UsageError, make_printable

READABLE = 64  # pixels that the side of a shown image should have
GAP = 2
APART = 10  # pixels between columns that do not stand together, besides
LIMIT = 2**26  # pixels of a picture that every viewer still opens
LONGEST = 40  # characters of a name or a head
PAPER, INK = 255, 0
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
SIZE, LINE = 10, 14  # of letters, and from one line of them to the next, in pixels
MARK, HEAD = "cdm_grid", 200  # the text that tells a picture of ours, and where it stands

SheetRows = list[tuple[str, np.ndarray]]  # what stands left of a row, and the places of its images
Tiles = Mapping[int, np.ndarray]  # the image at a place, uint8 [H, W, C]


@dataclass(frozen=True)
class Sheet:
    """What a picture shows. heads: of each column, lines within; "" goes on with the one before.

    together: how many columns stand close to each other; 0, all of them.
    """

    tiles: Tiles
    rows: SheetRows
    title: str = ""
    heads: tuple[str, ...] = ()
    together: int = 0

    @property
    def columns(self) -> int:
        """How many images the longest row has."""
        return max(len(places) for _, places in self.rows)


@dataclass(frozen=True)
class Frame:
    """Where the images of a picture stand, in pixels.

    The first is at (left, top), each further one `across` to the right, after each `together` of
    them APART more, and `down` below; size is that of the whole (width, height).
    """

    left: int
    top: int
    across: int
    down: int
    together: int
    size: tuple[int, int]

    def find_x(self, column: int) -> int:
        """Return where an image of a column begins."""
        return self.left + column * self.across + APART * (column // self.together)


def place_frame(sheet: Sheet, scale: int) -> Frame:
    """Return where the images stand, each pixel scale wide; what is written gets the room it needs.

    Raises UsageError where that is more than viewers open.
    """
    height, width, _ = next(iter(sheet.tiles.values())).shape
    heads = [_split_lines(head) for head in sheet.heads]
    spans = _find_spans(sheet.heads)
    widest = max((_measure_width(heads[at]) / num for at, num in spans), default=0)
    across = max(width * scale, math.ceil(widest) + 2 * GAP * bool(widest)) + GAP
    names = _measure_width([name for name, _ in sheet.rows])
    margin = math.ceil(names) + 3 * GAP if names else 0
    left = margin + (across - GAP - width * scale) // 2
    top = LINE * (bool(sheet.title) + max(map(len, heads), default=0))
    down = height * scale + GAP
    together = sheet.together or sheet.columns
    apart = APART * ((sheet.columns - 1) // together)
    whole = margin + sheet.columns * across + apart - GAP, top + len(sheet.rows) * down - GAP
    size = (
        max(whole[0], math.ceil(_measure_width([sheet.title])) + 2 * GAP * bool(sheet.title)),
        whole[1],
    )
    _check_size(size)
    return Frame(left, top, across, down, together, size)


def _check_size(size: tuple[int, int]) -> None:
    pixels = size[0] * size[1]
    if pixels > LIMIT:
        raise UsageError(
            f"the picture would have {pixels:.1e} pixels, the limit is {LIMIT:.1e}",
            kept="nothing was written",
            next="fewer images (--num, --per-class) or a smaller --scale",
        )


def draw_sheet(sheet: Sheet, scale: int) -> Image.Image:
    """Draw a sheet, each pixel of its images scale wide. Raises what `place_frame` raises."""
    frame = place_frame(sheet, scale)
    height, width, channels = next(iter(sheet.tiles.values())).shape
    picture = Image.new(MODES[channels], frame.size, (PAPER,) * channels)
    pen = _Pen(picture, channels)
    pen.write((GAP, LINE // 2), sheet.title, "lm")
    _draw_heads(pen, sheet, frame, width * scale)
    for row, (name, places) in enumerate(sheet.rows):
        y = frame.top + row * frame.down
        pen.write((GAP, y + height * scale // 2), name, "lm")
        for column, place in enumerate(places.tolist()):
            tile = sheet.tiles[place].repeat(scale, 0).repeat(scale, 1)
            picture.paste(from_array(tile), (frame.find_x(column), y))
    return picture


def _draw_heads(pen: "_Pen", sheet: Sheet, frame: Frame, width: int) -> None:
    """Write each head in the middle of the columns that it spans, its last line above them."""
    for at, num in _find_spans(sheet.heads):
        x = (frame.find_x(at) + frame.find_x(at + num - 1) + width) // 2
        lines = _split_lines(sheet.heads[at])
        for up, line in enumerate(reversed(lines)):
            pen.write((x, frame.top - LINE * up - LINE // 2), line, "mm")


class _Pen:
    """Writes one line of text into a picture."""

    def __init__(self, picture: Image.Image, channels: int) -> None:
        self._draw = ImageDraw.Draw(picture)
        self._ink = (INK,) * channels if channels in (1, 3) else (*(INK,) * (channels - 1), 255)

    def write(self, at: tuple[int, int], text: str, anchor: str) -> None:
        """Write at a point; anchor as Pillow has it."""
        self._draw.text(at, _shorten(text), fill=self._ink, font=_load_font(), anchor=anchor)


@cache
def _load_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that matplotlib has: it knows more letters than Pillow's, and ×."""
    found = find_spec("matplotlib")
    path = Path(found.origin).parent / FONT if found and found.origin else Path(FONT)
    return ImageFont.truetype(path, SIZE) if path.is_file() else ImageFont.load_default(SIZE)


def _shorten(text: str) -> str:
    """Return text as one line; names come from files, and may hold anything."""
    line = make_printable(text)
    return line if len(line) <= 2 * LONGEST else f"{line[:LONGEST]}…{line[-LONGEST // 2 :]}"


def _measure_width(texts: Sequence[str]) -> float:
    return max((_load_font().getlength(_shorten(text)) for text in texts), default=0.0)


def _split_lines(head: str) -> list[str]:
    return head.split("\n") if head else []


def _find_spans(heads: Sequence[str]) -> list[tuple[int, int]]:
    """Return the column where each head begins, and how many columns it spans."""
    starts = [at for at, head in enumerate(heads) if head]
    ends = [*starts[1:], len(heads)]
    return [(start, end - start) for start, end in zip(starts, ends, strict=False)]


def choose_scale(side: int) -> int:
    """Return how wide a pixel must be so that an image of this side can be looked at."""
    return max(1, READABLE // side)


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image uint8 [H, W, C] at [side, side, C], by nearest neighbour."""
    height, width, _ = image.shape
    return image[np.arange(side) * height // side][:, np.arange(side) * width // side]


def make_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image uint8 [H, W, C] in three channels: gray three times, without opacity."""
    channels = image.shape[-1]
    return image[..., :3] if channels >= 3 else image[..., :1].repeat(3, axis=-1)


def encode_png(picture: Image.Image, mark: str = "") -> bytes:
    """Encode a picture. mark: what its first bytes say of it."""
    held, info = io.BytesIO(), PngInfo()
    if mark:
        info.add_text(MARK, mark)
    picture.save(held, "PNG", pnginfo=info)
    return held.getvalue()


def write_png(path: Path, picture: Image.Image, of: str) -> None:
    """Write a picture, over one of the same thing.

    Raises WouldOverwriteError where the name is that of anything else.
    """
    mark = hashlib.sha256(of.encode()).hexdigest()
    told = f"{MARK}\0{mark}".encode()
    write_over_own(path, encode_png(picture, mark), told, HEAD, f"picture of {of}")
