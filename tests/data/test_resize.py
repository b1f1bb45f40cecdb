"""Mirrors cdm_cli/data/resize.py: against exact fractions, and guided-diffusion's own steps."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from cdm_cli.data.images import from_array
from cdm_cli.data.resize import (
    Span,
    average_areas,
    cut_centre_square,
    join_sums,
    resize_image,
    sum_boxes,
)
from tests.drawings import pixels, resize


def weights(S, R):
    """Share of source pixel k in target pixel i, in exact fractions [R][S]."""
    factor = Fraction(S, R)
    return [
        [max(Fraction(0), min(k + 1, (i + 1) * factor) - max(k, i * factor)) for k in range(S)]
        for i in range(R)
    ]


def area(x, R, *spans):
    return average_areas(x, [R], *spans)[0]


def exact_area(x, R):
    """The area mean by its definition, rounded half up."""
    H, W, C = x.shape
    rows, columns = weights(H, R), weights(W, R)
    out = np.empty((R, R, C), np.uint8)
    for i, j, c in np.ndindex(R, R, C):
        total = sum(
            rows[i][k] * columns[j][m] * int(x[k, m, c])
            for k in range(H) if rows[i][k] for m in range(W) if columns[j][m]
        )  # fmt: skip
        out[i, j, c] = int(total / (Fraction(H, R) * Fraction(W, R)) + Fraction(1, 2))
    return out


@pytest.mark.parametrize(("S", "R"), [(12, 4), (12, 12), (7, 3), (13, 8), (9, 7), (10, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_area_is_the_exact_mean(S, R, channels):
    x = np.random.default_rng(S).integers(0, 256, (S, S, channels), dtype=np.uint8)
    assert np.array_equal(area(x, R), exact_area(x, R))


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6, 8])
def test_whole_factors_give_the_block_mean_halves_up(factor):
    """Every possible sum of a block of 2×2, and random larger ones; both code paths."""
    rng = np.random.default_rng(factor)
    x = rng.integers(0, 256, (8 * factor, 8 * factor, 3), dtype=np.uint8)
    blocks = x.reshape(8, factor, 8, factor, 3).astype(np.int64).sum(axis=(1, 3))
    expected = (2 * blocks + factor**2) // (2 * factor**2)
    assert np.array_equal(resize(from_array(x), 8), expected)
    assert np.array_equal(area(x, 8), expected)


def test_reduce_agrees_with_area_on_every_tie():
    sums = np.arange(1021)
    x = np.stack([np.minimum(255, np.maximum(0, sums - 255 * k)) for k in range(4)], axis=-1)
    x = x.astype(np.uint8).reshape(1, 1021, 2, 2).transpose(0, 2, 1, 3).reshape(2, 2042)
    x = np.repeat(x, 1021, axis=0)[..., None]
    assert np.array_equal(resize(from_array(x), 1021), area(x, 1021))


def test_sums_of_a_large_white_image_do_not_overflow():
    x = np.full((3001, 3001, 1), 255, np.uint8)
    sums, weight = sum_boxes(x, 2)
    assert weight == 3001**2
    assert (sums == 255 * weight).all()


def test_joined_sums_of_a_large_white_image_do_not_overflow():
    x = np.full((1500, 1500, 1), 255, np.uint8)
    sums, weight = sum_boxes(x, 8)
    assert sums.dtype == np.int32
    sums, weight = join_sums(sums, weight, 4, 256)
    assert weight == 16 * 1500**2
    assert (sums == 255 * weight).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("spans", [(), (Span(5, 190, 4), Span(1, 190, 4))])
def test_resolutions_that_divide_each_other_are_those_of_each_alone(channels, spans):
    x = np.random.default_rng(channels).integers(0, 256, (61, 61, channels), dtype=np.uint8)
    together = [4, 48, 12, 8, 24, 12]
    for R, found in zip(together, average_areas(x, together, *spans), strict=True):
        assert np.array_equal(found, area(x, R, *spans)), R


def test_what_is_transparent_has_no_say():
    x = np.zeros((2, 2, 4), np.uint8)
    x[0, 0] = (200, 100, 50, 255)
    x[0, 1] = (9, 9, 9, 0)
    assert area(x, 1)[0, 0].tolist() == [200, 100, 50, 64]
    assert area(np.zeros((4, 4, 2), np.uint8), 2).max() == 0


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(4, 9, 0, 2), (7, 4, 2, 0), (5, 5, 0, 0)]
)
def test_square_sits_in_the_middle(height, width, top, left):
    x = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    side = min(height, width)
    found = np.asarray(cut_centre_square(Image.fromarray(x)))
    assert np.array_equal(found, x[top : top + side, left : left + side])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 31), (17, 16), (5, 9)])
def test_adm_follows_guided_diffusion(height, width):
    """The steps of center_crop_arr, spelled out for one size each."""
    image = from_array(pixels(height=height, width=width))
    expected = image
    while min(expected.size) >= 16:
        expected = expected.resize(
            (expected.width // 2, expected.height // 2), Image.Resampling.BOX
        )
    scale = 8 / min(expected.size)
    size = (round(expected.width * scale), round(expected.height * scale))
    expected = np.array(expected.resize(size, Image.Resampling.BICUBIC))
    y, x = (expected.shape[0] - 8) // 2, (expected.shape[1] - 8) // 2
    assert np.array_equal(resize(image, 8, "adm"), expected[y : y + 8, x : x + 8])


def test_the_two_crops_differ_only_in_filter_on_flat_colour():
    image = from_array(np.full((40, 24, 3), 77, np.uint8))
    assert (resize(image, 8, "adm") == 77).all()
    assert (resize(image, 8, "biggan") == 77).all()


@pytest.mark.parametrize("crop", ["biggan", "adm"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_small_images_are_enlarged(crop, channels):
    x = np.full((5, 7, channels), 200, np.uint8)
    found = resize(from_array(x), 8, crop)
    assert found.shape == (8, 8, channels)
    assert (found == 200).all()


def test_spans_are_averaged_as_if_their_pixels_were_repeated():
    """What a draft needs: pixels of 4, of which a stretch that cuts some is averaged."""
    x = np.random.default_rng(3).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    large = x.repeat(4, axis=0).repeat(4, axis=1)
    across, down = Span(5, 22, 4), Span(1, 22, 4)
    assert np.array_equal(area(x, 5, across, down), exact_area(large[1:23, 5:27], 5))


def test_all_resolutions_at_once_are_those_of_each_alone():
    image = from_array(pixels(height=40, width=33))
    for crop in ("biggan", "adm"):
        together = resize_image(image, [8, 16, 33, 64], crop)
        for resolution, found in zip([8, 16, 33, 64], together, strict=True):
            assert np.array_equal(found, resize(image, resolution, crop))
