"""Mirrors cdm_cli/data/draft.py: when a draft is taken, where it lies, and how far it is off."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cdm_cli.data.draft import Draft
from cdm_cli.data.images import BadImageError, decode_and_tell, to_array
from cdm_cli.data.prepared import DRAFT, ImageRecipe, prepare_image
from tests.drawings import encoded


def photo(height, width, seed=0):
    """1/f noise [H, W, 3]."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    x = np.fft.irfft2((spectrum + spectrum[:1]) / frequency, (height, width))
    x = (x - x.mean()) / x.std()
    return np.clip(118 + 60 * np.moveaxis(x, 0, -1), 0, 255).astype(np.uint8)


def triangles(height, width, seed=0):
    """Hard edges in every direction."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    for _ in range(40):
        corners = [tuple(corner) for corner in rng.integers(0, (width, height), (3, 2)).tolist()]
        ImageDraw.Draw(image).polygon(corners, fill=tuple(rng.integers(0, 256, 3).tolist()))
    return np.asarray(image)


def both(data, resolution, channels=3):
    """The image prepared in full and from a draft, as int, and what the draft took."""
    recipe = ImageRecipe((resolution,), channels, "biggan", found=False)
    drafting = ImageRecipe((resolution,), channels, "biggan", found=False, draft=True)
    (full,), _ = prepare_image(data, recipe, "x")
    (draft,), kinds = prepare_image(data, drafting, "x")
    return full.astype(int), draft.astype(int), kinds


@pytest.mark.parametrize(
    ("short", "scale"), [(127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (1100, 8)]
)
def test_a_draft_is_taken_only_where_8_pixels_are_left_for_one(short, scale):
    data = encoded(Image.new("RGB", (short + 30, short), "red"), "JPEG")
    least = ImageRecipe((8, 4), 3, "biggan", found=False, draft=True).least
    assert least == 8 * DRAFT == 64
    image, kinds, draft = decode_and_tell(data, least)
    if scale == 1:
        assert (image.size, kinds, draft) == ((short + 30, short), (), None)
    else:
        assert image.size == (-(-(short + 30) // scale), -(-short // scale))
        assert kinds == (f"decoded at 1/{scale}",)
        assert draft == Draft(scale, (short + 30, short))


def test_nothing_is_drafted_unasked_nor_what_is_no_jpeg():
    image = Image.new("RGB", (256, 256), "red")
    assert ImageRecipe((8,), 3, "biggan", found=False).least is None
    assert decode_and_tell(encoded(image, "JPEG")).draft is None
    for kind in ("PNG", "WEBP"):
        assert decode_and_tell(encoded(image, kind), 64).draft is None


@pytest.mark.parametrize("draw", [photo, triangles])
@pytest.mark.parametrize(("height", "width"), [(256, 341), (301, 270), (530, 777)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_tolerance_holds(draw, height, width, subsampling):
    """docs/method.md: a mean of 0.5 levels, a largest difference of 8."""
    data = encoded(draw(height, width), "JPEG", quality=90, subsampling=subsampling)
    full, draft, kinds = both(data, 16)
    assert kinds
    assert 0 < np.abs(full - draft).mean() <= 0.5
    assert np.abs(full - draft).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_draft_lies_where_the_turned_image_does(orientation):
    """Sides that no scale divides: pixels beyond the edge come first once they are turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(529, 1001), "JPEG", quality=90, exif=exif)
    full, draft, kinds = both(data, 8)
    assert kinds == (("turned by EXIF",) if orientation > 1 else ()) + ("decoded at 1/8",)
    assert np.abs(full - draft).mean() <= 0.5


def test_turned_draft_by_hand():
    draft = Draft(8, (1001, 529))  # 7 columns on the right and 7 rows below are beyond
    assert draft.turn(1) == draft
    assert draft.turn(2) == Draft(8, (1001, 529), (7, 0))
    assert Draft(8, (1003, 529)).turn(3) == Draft(8, (1003, 529), (5, 7))
    assert Draft(8, (1003, 529)).turn(6) == Draft(8, (529, 1003), (7, 0))
    assert Draft(8, (1003, 529)).turn(8) == Draft(8, (529, 1003), (0, 5))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gray_and_cmyk_drafts_are_the_same_colours(mode, channels):
    image = Image.fromarray(photo(300, 300)).convert(mode)
    full, draft, kinds = both(encoded(image, "JPEG", quality=95), 16, channels)
    assert kinds[-1] == "decoded at 1/2"
    assert full.shape == draft.shape == (16, 16, channels)
    assert np.abs(full - draft).mean() <= 0.5


def test_a_progressive_jpeg_and_the_first_picture_of_a_phone():
    image = Image.fromarray(photo(300, 300))
    for kind, options in (("JPEG", {"progressive": True}), ("MPO", {})):
        full, draft, kinds = both(encoded(image, kind, quality=90, **options), 16)
        assert kinds == ("decoded at 1/2",)
        assert np.abs(full - draft).mean() <= 0.5


def test_a_draft_of_a_cut_file_is_bad():
    data = encoded(photo(300, 300), "JPEG")
    for length in (len(data) // 8, len(data) // 2, len(data) - 40):
        with pytest.raises(BadImageError):
            decode_and_tell(data[:length], 64)


def test_the_same_draft_twice():
    data = encoded(photo(300, 300), "JPEG")
    first, second = (to_array(decode_and_tell(data, 64).image) for _ in range(2))
    assert np.array_equal(first, second)
