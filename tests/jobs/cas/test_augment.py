"""Mirrors cdm_cli/jobs/cas/augment.py."""

import pytest
import torch

from cdm_cli.data.pixels import from_uint8
from cdm_cli.jobs.cas.augment import augment, crop_centre, draw_boxes, draw_crops, resize_crop
from cdm_cli.jobs.cas.recipe import choose_recipe
from cdm_cli.options.cas import CasOptions
from tests.asking import as_typed


def recipe(resolution, **changes):
    return choose_recipe(
        as_typed(CasOptions, **({"batch_size": 12} | changes)), resolution=resolution, channels=3,
        num_classes=3, num=100, precision="fp32", seed=0,
    )  # fmt: skip


def images(num, side, generator):
    return torch.randint(0, 256, (num, 3, side, side), dtype=torch.uint8, generator=generator)


def test_boxes_lie_inside_and_follow_area_and_ratio(generator):
    box = draw_boxes(20_000, generator)
    centre, size = box[:, :2], box[:, 2:]
    assert (centre - size / 2).min() >= -1e-6
    assert (centre + size / 2).max() <= 1 + 1e-6
    area, ratio = size.prod(1), size[:, 0] / size[:, 1]
    assert 0.08 - 1e-6 <= area.min() < 0.09
    assert 0.75 - 1e-5 <= ratio.min()
    assert ratio.max() <= 4 / 3 + 1e-5
    # Uniform in 0.08..1 has the mean 0.54; boxes that do not fit are drawn again, so less.
    assert area.mean().item() == pytest.approx(0.5, abs=0.03)
    assert ratio.log().mean().item() == pytest.approx(0, abs=0.01)


def test_a_box_of_the_whole_image_is_the_image(generator):
    x = torch.randn(2, 3, 16, 16, generator=generator)
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(resize_crop(x, whole, 16), x, atol=1e-5, rtol=0)


def test_a_box_is_cut_where_it_lies(generator):
    """x from a quarter to three quarters, y from the top to the middle, one pixel for one."""
    x = torch.randn(1, 3, 16, 16, generator=generator)
    box = torch.tensor([[0.5, 0.25, 0.5, 0.5]])
    torch.testing.assert_close(resize_crop(x, box, 8), x[:, :, :8, 4:12], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("resolution", "crop"), [(8, 8), (32, 32), (64, 56), (256, 224)])
def test_sizes_that_training_and_test_see(generator, resolution, crop):
    made = recipe(resolution, batch_size=2)
    x_0 = images(2, resolution, generator)
    assert made.crop == crop
    assert augment(x_0, draw_crops(made, 1), made).shape == (2, 3, crop, crop)
    assert crop_centre(x_0, crop).shape == (2, 3, crop, crop)


def test_the_test_sees_the_centre(generator):
    x_0 = images(1, 64, generator)
    torch.testing.assert_close(crop_centre(x_0, 56), from_uint8(x_0[:, :, 4:60, 4:60]))


@pytest.mark.parametrize("resolution", [16, 64])
def test_half_of_the_images_are_mirrored(generator, resolution):
    draws = draw_crops(recipe(resolution, batch_size=400), 1)
    assert draws.coins.float().mean().item() == pytest.approx(0.5, abs=0.1)
    made, x_0 = recipe(resolution), images(12, resolution, generator)
    draws = draw_crops(made, 1)
    seen, coins = augment(x_0, draws, made), draws.coins
    plain = augment(x_0, draws._replace(coins=torch.zeros_like(coins)), made)
    assert torch.equal(seen[coins], plain[coins].flip(-1))
    assert torch.equal(seen[~coins], plain[~coins])


def test_small_images_are_windows_of_the_padded_image(generator):
    made = recipe(16)
    x_0 = images(made.batch_size, 16, generator)
    draws = draw_crops(made, 3)
    plain = draws._replace(coins=torch.zeros_like(draws.coins))
    padded = torch.nn.functional.pad(from_uint8(x_0), (2, 2, 2, 2), mode="reflect")
    for i, x in enumerate(augment(x_0, plain, made)):
        top, left = draws.shifts[:, i].tolist()
        torch.testing.assert_close(x, padded[i, :, top : top + 16, left : left + 16])


@pytest.mark.parametrize("resolution", [16, 64])
def test_a_piece_sees_what_the_whole_batch_sees(generator, resolution):
    made = recipe(resolution)
    x_0, draws = images(made.batch_size, resolution, generator), draw_crops(made, 2)
    whole = augment(x_0, draws, made)
    for rows in (slice(0, 5), slice(5, 7), slice(7, 12)):
        assert torch.equal(augment(x_0[rows], draws.take_rows(rows), made), whole[rows])


def test_boxes_that_no_small_image_needs_are_not_drawn():
    """What is drawn before them stays as it is."""
    small, large = recipe(16), recipe(64, batch_size=12).model_copy(update={"pad": 2})
    assert draw_crops(small, 1).boxes is None
    assert all(map(torch.equal, draw_crops(small, 1)[1:], draw_crops(large, 1)[1:]))


def test_draws_depend_on_step_and_seed_and_are_cut_by_rows():
    made = recipe(64)
    assert torch.equal(draw_crops(made, 1).boxes, draw_crops(made, 1).boxes)
    assert not torch.equal(draw_crops(made, 1).boxes, draw_crops(made, 2).boxes)
    other = made.model_copy(update={"seed": 1})
    assert not torch.equal(draw_crops(made, 1).boxes, draw_crops(other, 1).boxes)
    part = draw_crops(made, 1).take_rows(slice(3, 7))
    assert torch.equal(part.boxes, draw_crops(made, 1).boxes[3:7])
    assert torch.equal(part.shifts, draw_crops(made, 1).shifts[:, 3:7])
