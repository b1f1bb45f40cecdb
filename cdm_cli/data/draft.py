"""Drafts: JPEGs decoded at 1/2, 1/4 or 1/8, by an inverse DCT of fewer coefficients.

A draft is not the mean of the pixels, so what is made of it differs a little from what is made of
the full image. docs/method.md says by how much under the rule that `cdm prepare` follows.
"""

from typing import NamedTuple

from PIL import Image

_RIGHT_BECOMES_LEFT, _BOTTOM_BECOMES_TOP = (2, 3, 6, 7), (3, 4, 7, 8)  # EXIF orientations
_FIRST_ON_ITS_SIDE = 5


class Draft(NamedTuple):
    """How a smaller decoded image lies on the full one.

    A pixel of it covers scale pixels of the full one each way. size: of the full one (x, y).
    before: pixels by which it begins before the full one; its last may reach beyond the end.
    """

    scale: int
    size: tuple[int, int]
    before: tuple[int, int] = (0, 0)

    def turn(self, orientation: int) -> "Draft":
        """Return the draft of the image after an EXIF orientation (1..8) is applied to it."""
        (width, height), scale = self.size, self.scale
        right, bottom = -width % scale, -height % scale
        if orientation >= _FIRST_ON_ITS_SIDE:
            width, height, right, bottom = height, width, bottom, right
        x = right if orientation in _RIGHT_BECOMES_LEFT else 0
        y = bottom if orientation in _BOTTOM_BECOMES_TOP else 0
        return Draft(scale, (width, height), (x, y))


def ask_for_draft(image: Image.Image, least: int) -> Draft | None:
    """Have Pillow decode a JPEG smaller, at the smallest scale that leaves `least` pixels.

    least: of the short side. None where the image is decoded at full size. Call it before the
    pixels are loaded.
    """
    size = image.size
    scale = next((n for n in (8, 4, 2) if min(size) >= n * least), 1)
    if scale == 1 or image.format not in ("JPEG", "MPO"):
        return None
    image.draft(None, (size[0] // scale, size[1] // scale))
    return Draft(scale, size) if image.size != size else None
