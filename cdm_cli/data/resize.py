"""Crop and downsample, from full resolution to each stored one.

"biggan" (the default, and the paper's): the centre square on the short side (placed as
torchvision's CenterCrop places it), then the exact area mean. A target pixel is the mean
of the source area it covers, cut pixels counting by their share, computed in integers and
rounded once, halves up: for integer factors that is the block mean, and the bits are the
same on every machine. Colour is weighted with alpha, where there is alpha. Of a draft
(`data/draft.py`) the same square is taken, its pixels cut where the full image ends.

"adm": as center_crop_arr of openai/guided-diffusion: halve with BOX while the short side
is at least twice the target, then BICUBIC to the target, then cut the centre square.

An image smaller than the target is enlarged with Pillow's BICUBIC under both.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array

from cdm_cli.data.draft import Draft
from cdm_cli.data.images import U8, to_array
from cdm_cli.names import Crop

CONVENTIONS: dict[Crop, str] = {
    "biggan": "centre square on the short side, exact area mean rounded half up"
    " (bicubic where enlarged)",
    "adm": "box halvings, bicubic, centre square (center_crop_arr of guided-diffusion)",
}


class Span(NamedTuple):
    """A stretch of one axis, in units of which a source pixel holds scale."""

    start: int
    length: int
    scale: int = 1


def resize_image(
    image: Image.Image, resolutions: Sequence[int], crop: Crop, draft: Draft | None = None
) -> list[U8]:
    """Crop and downsample an image to uint8 [R, R, C] for every resolution R.

    draft: how the image lies on the full one, where it was decoded smaller than that is.
    """
    if crop == "adm":
        return [_resize_as_adm(image, resolution) for resolution in resolutions]
    if draft is not None:
        return average_areas(to_array(image), resolutions, *_place_spans(draft))
    square = cut_centre_square(image)
    pixels = to_array(square)
    found = {R: _fit(square, pixels, R) for R in resolutions}
    left = [R for R in resolutions if found[R] is None]
    found.update(zip(left, average_areas(pixels, left), strict=True))
    return [cast(U8, found[R]) for R in resolutions]


def cut_centre_square(image: Image.Image) -> Image.Image:
    """Cut the largest square out of the middle (as torchvision's CenterCrop places it)."""
    side = min(image.size)
    if image.width == image.height:
        return image
    left, top = (_find_margin(length, side) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _find_margin(length: int, side: int) -> int:
    return round((length - side) / 2)


def _place_spans(draft: Draft) -> tuple[Span, Span]:
    """Return the centre square of the full image, across and down."""
    side = min(draft.size)
    across, down = (
        Span(before + _find_margin(length, side), side, draft.scale)
        for length, before in zip(draft.size, draft.before, strict=True)
    )
    return across, down


def average_areas(
    pixels: U8, resolutions: Sequence[int], across: Span | None = None, down: Span | None = None
) -> list[U8]:
    """Shrink [H, W, C], or the spans of it, to every [R, R, C] by the area mean, rounded half up.

    The sums of a resolution that divides a larger one are those of the larger one added up.
    """
    alpha = pixels.shape[-1] in (2, 4)
    source = _weight(pixels) if alpha else pixels
    sums: dict[int, tuple[NDArray[np.integer], int]] = {}
    for R in sorted(set(resolutions), reverse=True):
        multiple = min((larger for larger in sums if larger % R == 0), default=None)
        if multiple is None:
            sums[R] = sum_boxes(source, R, across, down)
        else:
            sums[R] = join_sums(*sums[multiple], multiple // R, _bound_pixels(source))
    mean = _mean_with_alpha if alpha else _mean
    return [_transpose(mean(*sums[R])) for R in resolutions]


def _mean(sums: NDArray[np.integer], weight: int) -> U8:
    sums = sums + weight // 2
    sums //= weight
    return sums.astype(np.uint8)


def _weight(pixels: U8) -> NDArray[np.int32]:
    """Weight colour with alpha: what is transparent has no say."""
    weighted = pixels.astype(np.int32)
    weighted[..., :-1] *= weighted[..., -1:]
    return weighted


def _mean_with_alpha(sums: NDArray[np.integer], weight: int) -> U8:
    alpha = sums[..., -1:]
    colour = sums[..., :-1] / np.maximum(alpha, 1)
    means = np.concatenate([colour, alpha / weight], axis=-1)
    return (means + 0.5).astype(np.uint8)


def sum_boxes(
    pixels: NDArray[np.integer], R: int, across: Span | None = None, down: Span | None = None
) -> tuple[NDArray[np.integer], int]:
    """Sum [H, W, C] over the box of each target pixel; return [R, R, C], its first axis x.

    Exact: shares of cut pixels are whole numbers, and every sum fits its integer. Returns
    the sums and their weight, so that the mean is sums / weight. H, W >= R.
    """
    H, W, C = pixels.shape
    across, down = across or Span(0, W), down or Span(0, H)
    weight, top = down.length * across.length, _bound_pixels(pixels)
    narrow, wide = _choose_integer(top * down.length), _choose_integer(top * weight)
    rows = _sum(pixels.reshape(H, W * C).astype(narrow), down, R)
    turned = _transpose(rows.reshape(R, W, C)).reshape(W, R * C)
    return _sum(turned.astype(wide, copy=False), across, R).reshape(R, R, C), weight


def join_sums(
    sums: NDArray[np.integer], weight: int, factor: int, top: int
) -> tuple[NDArray[np.integer], int]:
    """Add up each factor x factor of the sums [R, R, C]: the `sum_boxes` of R / factor."""
    R, _, C = sums.shape
    size, weight = R // factor, weight * factor**2
    sums = sums.astype(_choose_integer(top * weight), copy=False)
    rows = _add(np.moveaxis(sums.reshape(size, factor, R, C), 1, 0))
    return _add(np.moveaxis(rows.reshape(size, size, factor, C), 2, 0)), weight


def _add(parts: NDArray[np.integer]) -> NDArray[np.integer]:
    """Sum over the first axis; whole parts at a time are faster than NumPy's own order."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _bound_pixels(pixels: NDArray[np.integer]) -> int:
    """Return one more than a pixel can be, so that half of a weight may be added to a sum."""
    return 256 if pixels.dtype == np.uint8 else 256 * 256


def _choose_integer(bound: int) -> type[np.integer]:
    return np.int32 if bound < 2**31 else np.int64


def _sum(x: NDArray[np.integer], span: Span, R: int) -> NDArray[np.integer]:
    """Sum the rows of x [S, M] into R boxes [R, M]."""
    return cast(NDArray[np.integer], _share_boxes(x.shape[0], span, R, x.dtype) @ x)


@lru_cache(maxsize=256)
def _share_boxes(S: int, span: Span, R: int, dtype: np.dtype[Any]) -> csr_array:
    """Return the shares [R, S] of S rows in R boxes, each of which weighs span.length.

    In units of 1/R, row k covers k·scale·R to (k + 1)·scale·R, and box i covers
    start·R + i·length to start·R + (i + 1)·length.
    """
    row, boxes = span.scale * R, span.start * R + np.arange(R + 1) * span.length
    cuts = np.union1d(boxes, np.arange(boxes[0] // row + 1, -(-boxes[-1] // row)) * row)
    pieces = np.searchsorted(cuts, boxes)
    return csr_array((np.diff(cuts).astype(dtype), cuts[:-1] // row, pieces), shape=(R, S))


def _transpose(x: NDArray[Any]) -> NDArray[Any]:
    """[A, B, C] -> [B, A, C], contiguous: a pixel moves as one piece, twice as fast."""
    A, B, C = x.shape
    whole = np.ascontiguousarray(x).view(f"V{C * x.itemsize}").reshape(A, B)
    return np.ascontiguousarray(whole.T).view(x.dtype).reshape(B, A, C)


def _fit(square: Image.Image, pixels: U8, resolution: int) -> U8 | None:
    """Enlarge, leave or shrink a square image with Pillow; None where only sums of boxes do.

    pixels: those of the image. For opaque images and a factor that is a power of 2, Pillow's
    reduce is the same exact mean.
    """
    factor, rest = divmod(square.width, resolution)
    if factor == 0:
        return to_array(square.resize((resolution, resolution), Image.Resampling.BICUBIC))
    if factor == 1 and not rest:
        return pixels
    if not rest and factor.bit_count() == 1 and square.mode in ("L", "RGB"):
        return to_array(square.reduce(factor))
    return None


def _resize_as_adm(image: Image.Image, resolution: int) -> U8:
    while min(image.size) >= 2 * resolution:
        halved = (image.width // 2, image.height // 2)
        image = image.resize(halved, resample=Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    pixels = to_array(image.resize(size, resample=Image.Resampling.BICUBIC))
    top = (pixels.shape[0] - resolution) // 2
    left = (pixels.shape[1] - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution]
