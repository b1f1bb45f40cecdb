"""From the file of an image to its pixels at every resolution, decoded once.

Nothing here needs torch, so that the processes that decode start quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdm_cli.data.images import (
    U8,
    BadImageError,
    Decoded,
    convert_channels,
    decode,
    decode_and_tell,
    from_array,
    has_colour,
    probe,
)
from cdm_cli.data.resize import resize_image
from cdm_cli.data.sources import Source
from cdm_cli.errors import MismatchError
from cdm_cli.names import Crop

LOOKED_AT = 1024  # images, spread over the source, that decide what all of them are
DRAFT = 8  # pixels of a draft, at least, for a pixel that is stored, each way
ENLARGED = "enlarged (smaller than the resolution)"


@dataclass(frozen=True)
class ImageRecipe:
    """How every image becomes pixels at each of `resolutions`, with 1..4 channels.

    found: whether channels were found by looking at some images, not asked for. draft: whether
    large JPEGs are decoded smaller.
    """

    resolutions: tuple[int, ...]
    channels: int
    crop: Crop
    found: bool
    draft: bool = False

    @property
    def least(self) -> int | None:
        """The short side that a draft must have, if drafts are allowed."""
        return DRAFT * max(self.resolutions) if self.draft else None


@dataclass(frozen=True)
class Look:
    """What a sample of a source's images have in common. size: (width, height) if all are equal."""

    colour: bool
    alpha: bool
    size: tuple[int, int] | None

    @property
    def channels(self) -> int:
        """1 or 3, and one more where every image has alpha."""
        return (3 if self.colour else 1) + self.alpha


def look(source: Source, num: int = LOOKED_AT) -> Look:
    """Look at up to num images of a source; those that cannot be read are ignored.

    An image file is gray if no pixel of it has a colour, however it is stored; of an array the
    number of channels decides.
    """
    colour, alpha = False, True
    sizes: set[tuple[int, int]] = set()
    places = np.unique(np.linspace(0, len(source.names) - 1, num).round().astype(int))
    for i in places.tolist():
        try:
            data = source.read(i)
            if isinstance(data, bytes):
                header = probe(data)
                sizes.add((header.width, header.height))
                alpha &= "alpha" in header.kinds
                colour = colour or (not header.gray and has_colour(decode(data)))
            else:
                sizes.add((data.shape[1], data.shape[0]))
                alpha &= data.shape[2] in (2, 4)
                colour = colour or data.shape[2] > 2
        except BadImageError:
            continue
    return Look(colour, alpha and bool(sizes), sizes.pop() if len(sizes) == 1 else None)


def prepare_image(
    data: bytes | U8, recipe: ImageRecipe, name: str
) -> tuple[list[U8], Sequence[str]]:
    """Return the pixels uint8 [R, R, C] at every resolution R, and the conversions that it took.

    data: the image file, or pixels [H, W, C]. name: what an error calls the image. Raises
    BadImageError; MismatchError for a coloured image where those looked at were gray.
    """
    image, kinds, draft = (
        decode_and_tell(data, recipe.least)
        if isinstance(data, bytes)
        else Decoded(from_array(data), ())
    )
    if recipe.found and recipe.channels < 3 and has_colour(image):
        raise MismatchError(
            f"{name} has colour, but the {LOOKED_AT} images looked at first are gray",
            kept="no store was made",
            next="--channels 3, or --channels 1 to make all of them gray",
        )
    image = convert_channels(image, recipe.channels)
    if min(image.size) < max(recipe.resolutions):
        kinds = (*kinds, ENLARGED)
    return resize_image(image, recipe.resolutions, recipe.crop, draft), kinds
