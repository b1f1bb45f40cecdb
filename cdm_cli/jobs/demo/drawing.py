"""The images that `cdm demo` learns from: ten kinds of figure, drawn by formula.

Every figure is a signed distance: negative inside, in units of the image's width. Place,
size, turn and the two colours are drawn for each image, so that no two are alike; edges
are anti-aliased over one pixel.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.pictures.tiles import encode_png

Plane = np.ndarray  # float [H, W]
Distance = Callable[[Plane, Plane, float], Plane]

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # archives of the same images are the same bytes


def _disk(x: Plane, y: Plane, size: float) -> Plane:
    return np.hypot(x, y) - size


def _ring(x: Plane, y: Plane, size: float) -> Plane:
    return np.abs(np.hypot(x, y) - 0.75 * size) - 0.25 * size


def _square(x: Plane, y: Plane, size: float) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * size


def _frame(x: Plane, y: Plane, size: float) -> Plane:
    return np.abs(_square(x, y, 0.8 * size)) - 0.2 * size


def _triangle(x: Plane, y: Plane, size: float) -> Plane:
    slanted = 0.8944 * np.abs(x) - 0.4472 * (y + size)
    return np.maximum(slanted, y - 0.8 * size)


def _plus(x: Plane, y: Plane, size: float) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - size, np.minimum(x, y) - 0.28 * size)


def _saltire(x: Plane, y: Plane, size: float) -> Plane:
    return _plus(0.7071 * (x + y), 0.7071 * (x - y), 1.1 * size)


def _stripes_across(x: Plane, y: Plane, size: float) -> Plane:
    return np.abs((y / size) % 1 - 0.5) * size - 0.25 * size


def _stripes_down(x: Plane, y: Plane, size: float) -> Plane:
    return _stripes_across(y, x, size)


def _checkerboard(x: Plane, y: Plane, size: float) -> Plane:
    return size * np.sin(np.pi * x / size) * np.sin(np.pi * y / size) / np.pi


FIGURES: dict[str, Distance] = {
    "checkerboard": _checkerboard,
    "disk": _disk,
    "frame": _frame,
    "plus": _plus,
    "ring": _ring,
    "saltire": _saltire,
    "square": _square,
    "stripes-across": _stripes_across,
    "stripes-down": _stripes_down,
    "triangle": _triangle,
}
ENDLESS = {  # these fill the image; the size is one cell, or one pair of stripes
    "checkerboard": (0.26, 0.4),
    "stripes-across": (0.4, 0.6),
    "stripes-down": (0.4, 0.6),
}
FIGURE_SIZE = (0.26, 0.4)


def _draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a ground and an ink, one dark and one bright, either way round."""
    dark = rng.uniform(0, 90, 3)
    bright = rng.uniform(90, 255, 3)
    bright[rng.integers(3)] = rng.uniform(210, 255)
    return (dark, bright) if rng.random() < 0.5 else (bright, dark)


def draw(name: str, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one image of the figure `name`: uint8 [resolution, resolution, 3]."""
    size = rng.uniform(*ENDLESS.get(name, FIGURE_SIZE))
    reach = 0.5 if name in ENDLESS else 0.46 - size
    centre = 0.5 + rng.uniform(-reach, reach, 2)
    turn = rng.normal(0, 0.06)
    grid = (np.arange(resolution) + 0.5) / resolution
    y, x = np.meshgrid(grid - centre[0], grid - centre[1], indexing="ij")
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    cover = np.clip(0.5 - FIGURES[name](x, y, size) * resolution, 0, 1)[..., None]
    ground, ink = _draw_colours(rng)
    return np.rint(ground + cover * (ink - ground)).astype(np.uint8)


def write_images(path: Path, *, per_class: int, resolution: int, seed: int) -> int:
    """Write a .zip of class folders with per_class images each; return how many images.

    The same arguments give the same bytes. Raises DiskError.
    """
    rng = np.random.default_rng(seed)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        for name in FIGURES:
            for index in range(per_class):
                entry = zipfile.ZipInfo(f"{name}/{index:05d}.png", ZIP_EPOCH)
                archive.writestr(entry, encode_png(Image.fromarray(draw(name, resolution, rng))))
    write_file_atomically(path, held.getvalue())
    return per_class * len(FIGURES)
