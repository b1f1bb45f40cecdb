"""Image files become pixels, uint8 [H, W, C], by documented rules.

C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha).

- PNG, JPEG and WebP are read, whatever the name says; anything else is bad.
- More than 2^26 pixels, or an animation, is bad; the header tells before any pixel is read.
- An EXIF orientation is applied, unless it stands behind the pixels of a PNG, where viewers do not
  look either. Palettes are resolved, and so is the colour key of a PNG (`data/colour_key.py`).
- Colour profiles and gamma are not: numbers are taken as they are.
- 16 bits become 8 by dropping the lower byte. CMYK becomes RGB, colour becomes gray
  (ITU-R 601), as Pillow does it.
- Where alpha is not asked for, the image is composed on white.
- On demand, a JPEG much larger than what is made of it is decoded smaller (`data/draft.py`).

No torch here: the processes that decode start without it.
"""

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from cdm_cli.data.colour_key import has_key, make_alpha, read_raw_mode
from cdm_cli.data.draft import Draft, ask_for_draft

U8 = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 2**26
PROFILE, GAMMA, LATE_EXIF = (
    "colour profile ignored", "gamma ignored", "EXIF behind the pixels ignored",
)  # fmt: skip
USUAL_GAMMA = (0.44, 0.47)  # 1 / 2.2, as sRGB files say it
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(Exception):
    """One image that cannot be used; the text is the reason, without the name."""


class ImageHeader(NamedTuple):
    """What is known before a pixel is decoded. kinds: the conversions that decoding will take."""

    width: int
    height: int
    gray: bool
    kinds: tuple[str, ...]


class Decoded(NamedTuple):
    """An image of mode L, LA, RGB or RGBA, upright, and the conversions that it took."""

    image: Image.Image
    kinds: tuple[str, ...]
    draft: Draft | None = None


def probe(data: bytes) -> ImageHeader:
    """Read the header of an image file. Raises BadImageError."""
    with _translate_errors():
        image = _open(data)
        gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
        return ImageHeader(*image.size, gray, _list_kinds(image))


def decode(data: bytes) -> Image.Image:
    """Decode an image file to mode L, LA, RGB or RGBA, upright. Raises BadImageError."""
    return decode_and_tell(data).image


def decode_and_tell(data: bytes, least: int | None = None) -> Decoded:
    """Decode an image file as `decode` does; return it with the conversions that it took.

    least: a JPEG may be decoded at 1/2, 1/4 or 1/8 if its short side keeps so many pixels; None:
    at full size. Raises BadImageError.
    """
    with _translate_errors():
        image = _open(data)
        kinds, orientation, raw = _list_kinds(image), _read_orientation(image), read_raw_mode(image)
        draft = None if least is None else ask_for_draft(image, least)
        image.load()
        if "alpha" not in kinds:
            image.info.pop("transparency", None)  # it stands behind the pixels, where none looks
        upright = _make_plain(image, raw, data)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        elif _read_orientation(image) in _TURNS:
            kinds = (*kinds, LATE_EXIF)
        if draft is None:
            return Decoded(upright, kinds)
        kinds = (*kinds, f"decoded at 1/{draft.scale}")
        return Decoded(upright, kinds, draft.turn(orientation))


def _list_kinds(image: ImageFile.ImageFile) -> tuple[str, ...]:
    kinds = {
        "16-bit": read_raw_mode(image).endswith(";16B"),
        "CMYK": image.mode == "CMYK",
        "alpha": image.has_transparency_data,
        "palette": image.mode == "P",
        "turned by EXIF": _read_orientation(image) in _TURNS,
        PROFILE: "icc_profile" in image.info,
        GAMMA: _has_other_gamma(image),
    }
    return tuple(kind for kind, found in kinds.items() if found)


def _has_other_gamma(image: Image.Image) -> bool:
    """Tell whether a PNG says that its numbers are not the usual ones, and nothing better."""
    gamma = image.info.get("gamma")
    low, high = USUAL_GAMMA
    stronger = {"srgb", "icc_profile"} & image.info.keys()
    return gamma is not None and not stronger and not low <= gamma <= high


def convert_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert L, LA, RGB or RGBA to the mode of 1..4 channels; dropped alpha means white."""
    mode = MODES[channels]
    if "A" in image.mode and "A" not in mode:
        image = _compose_on_white(image)
    return image if image.mode == mode else image.convert(mode)


def from_array(pixels: U8) -> Image.Image:
    """Return pixels [H, W, C] as an image of C = 1..4 channels."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def to_array(image: Image.Image) -> U8:
    """Return the pixels [H, W, C] of an image of mode L, LA, RGB or RGBA."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def has_colour(image: Image.Image) -> bool:
    """Tell whether any pixel (over white, if it has alpha) is not gray."""
    if image.mode in ("L", "LA"):
        return False
    pixels = to_array(convert_channels(image, 3))
    return bool((pixels[..., :2] != pixels[..., 1:]).any())


def _open(data: bytes) -> ImageFile.ImageFile:
    _check_webp_canvas(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_pixels(*image.size)
    # A phone's JPEG may carry a second picture (format MPO); the first one is the photo.
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise BadImageError("animated")
    return image


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width}×{height} is more than 2^26 pixels")


def _check_webp_canvas(data: bytes) -> None:
    """Pillow allocates an extended WebP's whole canvas on opening: look first."""
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        _check_pixels(width, height)


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; an EXIF block that cannot be read says nothing."""
    if not {"exif", "xmp", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        orientation: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _make_plain(image: Image.Image, raw: str, data: bytes) -> Image.Image:
    """Convert any mode of PNG, JPEG and WebP to L, LA, RGB or RGBA."""
    if image.mode not in ("1", "L", "I;16", "RGB", "P", "LA", "RGBA", "CMYK"):
        raise BadImageError(f"pixels of mode {image.mode}")
    if has_key(image):
        alpha = make_alpha(image, raw, data)
        plain = _make_opaque(image)
        plain.putalpha(alpha)
        return plain
    if image.has_transparency_data:
        return image.convert("LA" if image.mode == "LA" else "RGBA")
    return _make_opaque(image)


def _make_opaque(image: Image.Image) -> Image.Image:
    """Bring an image to L or RGB; what else says that a value is transparent is forgotten."""
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    plain = image if image.mode == mode else image.convert(mode)  # to convert is to copy
    plain.info.pop("transparency", None)
    return plain


def _compose_on_white(image: Image.Image) -> Image.Image:
    """Compose on white, rounding once: (c·a + 255·(255 - a)) / 255."""
    pixels = to_array(image).astype(np.uint32)
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    composed = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return from_array(composed.astype(np.uint8))


@contextmanager
def _translate_errors() -> Generator[None]:
    """Turn whatever a decoder raises on damaged bytes into one short reason; mute its warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("not a PNG, JPEG or WebP image inside") from error
    except Image.DecompressionBombError as error:
        raise BadImageError("more than 2^26 pixels") from error
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadImageError(f"cannot be decoded ({text})") from error
