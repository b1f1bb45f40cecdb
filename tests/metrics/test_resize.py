"""Mirrors cdm_cli/metrics/resize.py, against Pillow and clean-fid's own resizers."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from PIL import Image

from cdm_cli.metrics.resize import resize_clean, resize_legacy_pytorch, to_channels


def drawn(H, W, channels=3):
    return torch.from_numpy(
        np.random.default_rng(H * 1000 + W).integers(0, 256, (1, channels, H, W)).astype(np.uint8)
    )


def by_cleanfid(images, mode):
    resized = build_resizer(mode)(images[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [1, 8, 32, 64, 256, 299, 400])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clean_is_pillow_to_the_bit(size):
    images = drawn(size, size)
    assert torch.equal(resize_clean(images), by_cleanfid(images, "clean"))


@pytest.mark.parametrize("size", [(64, 48), (301, 512), (512, 301)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_oblong_images_may_round_differently(size):
    """Pillow 13 takes the columns first in tall images: the last digit of float32 changes."""
    images = drawn(*size)
    difference = (resize_clean(images) - by_cleanfid(images, "clean")).abs().max()
    assert difference <= 4 * 255 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (400, 310)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_legacy_pytorch_is_that_of_cleanfid(size):
    images = drawn(*size)
    assert torch.equal(resize_legacy_pytorch(images), by_cleanfid(images, "legacy_pytorch"))


def test_channels():
    grey, colour = drawn(4, 4, 1), drawn(4, 4, 3)
    alpha = torch.full_like(grey, 9)
    assert torch.equal(to_channels(grey, 3), grey.expand(1, 3, 4, 4))
    assert torch.equal(to_channels(torch.cat([grey, alpha], 1), 1), grey)
    assert torch.equal(to_channels(torch.cat([colour, alpha], 1), 3), colour)
    assert to_channels(colour, 3) is colour
    pillow = np.asarray(Image.fromarray(colour[0].permute(1, 2, 0).numpy()).convert("L"))
    assert (to_channels(colour, 1)[0, 0].numpy() == pillow).all()
