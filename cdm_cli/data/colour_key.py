"""The colour key of a PNG (tRNS): the one sample value of gray or RGB that is transparent.

The key is compared with the samples as the file has them (PNG, third edition, 11.3.1.1), at 1, 2,
4, 8 or 16 bits; of the key as many of its lowest bits count, as in libpng. Pillow brings samples to
8 bits before it compares, and so finds a key of 2, 4 or 16 bits by chance at most.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

MODES = ("1", "L", "I;16", "RGB")
STEP = {"L;2": 85, "L;4": 17}  # of an 8-bit pixel, for a step of the sample
LOW_BYTES = "RGB;16L"  # read as little-endian, the byte that Pillow keeps is the lower one


def read_raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how the samples of a PNG that is not loaded yet lie in the file: "L;2", "RGB;16B"."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else ""


def has_key(image: Image.Image) -> bool:
    """Tell whether a PNG of gray or RGB names a transparent value."""
    return image.format == "PNG" and image.mode in MODES and "transparency" in image.info


def make_alpha(image: Image.Image, raw: str, data: bytes) -> Image.Image:
    """Return the alpha, mode L, that the key of a loaded PNG gives it: 0 where it is met, else 255.

    raw: its `read_raw_mode`. data: the file, of which 16-bit colours are read once more.
    """
    samples, depth = _read_samples(image, raw, data)
    key = np.asarray(image.info["transparency"]) & (2**depth - 1)
    met = samples == key
    return Image.fromarray(np.where(met.all(-1) if met.ndim == 3 else met, 0, 255).astype(np.uint8))


def _read_samples(image: Image.Image, raw: str, data: bytes) -> tuple[NDArray[np.integer], int]:
    """Return the samples [H, W] or [H, W, 3] and their bits."""
    if image.mode == "1":  # Pillow's key is then 0 or 1, and from 12.1 on 0 or 255
        return np.asarray(image.convert("L")) // 255, 1
    pixels = np.asarray(image)
    if raw in STEP:
        return pixels // STEP[raw], int(raw[-1])
    if raw == "RGB;16B":
        return pixels.astype(np.uint16) << 8 | _read_low_bytes(data), 16
    return pixels, 16 if image.mode == "I;16" else 8


def _read_low_bytes(data: bytes) -> NDArray[np.uint8]:
    again = Image.open(io.BytesIO(data), formats=("PNG",))
    again.tile = [tile._replace(args=LOW_BYTES) for tile in again.tile]
    return np.asarray(again)
