"""Crop and downsample, from full resolution to each stored one.

"biggan" (the default, and the paper's): the centre square on the short side (placed as
torchvision's CenterCrop places it), then the exact area mean. A target pixel is the mean
of the source area it covers, cut pixels counting by their share, computed in integers and
rounded once, halves up: for integer factors that is the block mean, and the bits are the
same on every machine. Colour is weighted with alpha, where there is alpha.

"adm": as center_crop_arr of openai/guided-diffusion: halve with BOX while the short side
is at least twice the target, then BICUBIC to the target, then cut the centre square.

An image smaller than the target is enlarged with Pillow's BICUBIC under both.
"""

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from cdm_cli.data.images import U8, to_array
from cdm_cli.names import Crop

CONVENTIONS: dict[Crop, str] = {
    "biggan": "centre square on the short side, exact area mean rounded half up"
    " (bicubic where enlarged)",
    "adm": "box halvings, bicubic, centre square (center_crop_arr of guided-diffusion)",
}


def resize(image: Image.Image, resolution: int, crop: Crop = "biggan") -> U8:
    """Return the pixels [resolution, resolution, C] of an image of 1..4 channels."""
    if crop == "adm":
        return _adm(image, resolution)
    square = centre_square(image)
    if square.width < resolution:
        return to_array(square.resize((resolution, resolution), Image.Resampling.BICUBIC))
    return _shrink(square, resolution)


def centre_square(image: Image.Image) -> Image.Image:
    """Cut the largest square out of the middle."""
    side = min(image.size)
    if image.width == image.height:
        return image
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def area(pixels: U8, resolution: int) -> U8:
    """Shrink [H, W, C] to [resolution, resolution, C] by the area mean, rounded half up."""
    if pixels.shape[-1] in (2, 4):
        return _area_with_alpha(pixels, resolution)
    sums, weight = box_sums(pixels, resolution)
    return _rounded(sums / weight)


def box_sums(pixels: NDArray[np.integer], resolution: int) -> tuple[NDArray[np.integer], int]:
    """Sum [H, W, C] over the boxes of each target pixel -> [resolution, resolution, C].

    Exact: shares of cut pixels are whole numbers, and every sum fits its integer. Returns
    the sums and their weight, so that the mean is sums / weight. H, W >= resolution.
    """
    H, W, C = pixels.shape
    top = np.iinfo(pixels.dtype).max if pixels.dtype == np.uint8 else 255 * 255
    narrow, wide = (np.int32 if 2 * top * n < 2**31 else np.int64 for n in (H, H * W))
    rows, per_row = _sum_rows(pixels.reshape(H, W * C), resolution, narrow)
    turned = np.ascontiguousarray(rows.reshape(resolution, W, C).swapaxes(0, 1))
    columns, per_column = _sum_rows(turned.reshape(W, resolution * C), resolution, wide)
    return columns.reshape(resolution, resolution, C).swapaxes(0, 1), per_row * per_column


def _sum_rows(x: NDArray[np.integer], R: int, dtype: DTypeLike) -> tuple[NDArray[np.integer], int]:
    """Sum the rows of x [S, M] into R boxes, and return the weight of a box.

    Box i covers i·S/R to (i + 1)·S/R. In units of 1/R every row weighs R, and of the row
    in which box i begins, the share (i·S mod R) belongs to the box before.
    """
    first, share = np.divmod(np.arange(R + 1) * x.shape[0], R)
    sums = np.empty((R, x.shape[1]), dtype)
    bounds = first.tolist()
    for i in range(R):
        np.add.reduce(x[bounds[i] : bounds[i + 1]], axis=0, dtype=dtype, out=sums[i])
    if not share.any():
        return sums, x.shape[0] // R
    before = share[:-1, None].astype(dtype) * x[first[:-1]]
    sums *= R
    sums -= before
    sums[:-1] += before[1:]
    return sums, x.shape[0]


def _area_with_alpha(pixels: U8, resolution: int) -> U8:
    """Average colour weighted by alpha: what is transparent has no say."""
    weighted = pixels.astype(np.int32)
    weighted[..., :-1] *= weighted[..., -1:]
    sums, weight = box_sums(weighted, resolution)
    alpha = sums[..., -1:]
    colour = sums[..., :-1] / np.maximum(alpha, 1)
    return _rounded(np.concatenate([colour, alpha / weight], axis=-1))


def _rounded(x: NDArray[np.floating]) -> U8:
    return np.ascontiguousarray((x + 0.5).astype(np.uint8))


def _shrink(square: Image.Image, resolution: int) -> U8:
    """Take Pillow's reduce where it is the same exact mean: opaque, factor a power of 2."""
    factor, rest = divmod(square.width, resolution)
    if factor == 1 and not rest:
        return to_array(square)
    if not rest and factor.bit_count() == 1 and square.mode in ("L", "RGB"):
        return to_array(square.reduce(factor))
    return area(to_array(square), resolution)


def _adm(image: Image.Image, resolution: int) -> U8:
    while min(image.size) >= 2 * resolution:
        halved = (image.width // 2, image.height // 2)
        image = image.resize(halved, resample=Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    pixels = to_array(image.resize(size, resample=Image.Resampling.BICUBIC))
    top = (pixels.shape[0] - resolution) // 2
    left = (pixels.shape[1] - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution]
