"""Mirrors cdm_cli/metrics/resize.py, against Pillow and clean-fid's own resizers."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from PIL import Image

from cdm_cli.metrics.resize import clean, legacy_pytorch, with_channels


def drawn(H, W, channels=3):
    return torch.from_numpy(
        np.random.default_rng(H * 1000 + W).integers(0, 256, (1, channels, H, W)).astype(np.uint8)
    )


def by_cleanfid(images, mode):
    resized = build_resizer(mode)(images[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32), (33, 64), (299, 299), (512, 301)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clean_is_pillow_to_the_last_digit(size):
    """The order of a float64 sum may round one value in ten thousand to its neighbour."""
    images = drawn(*size)
    ours, pillow = clean(images), by_cleanfid(images, "clean")
    assert (ours == pillow).double().mean() > 0.9999
    assert (ours - pillow).abs().max() <= 255 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (400, 310)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_legacy_pytorch_is_that_of_cleanfid(size):
    images = drawn(*size)
    assert torch.equal(legacy_pytorch(images), by_cleanfid(images, "legacy_pytorch"))


def test_channels():
    grey, colour = drawn(4, 4, 1), drawn(4, 4, 3)
    alpha = torch.full_like(grey, 9)
    assert torch.equal(with_channels(grey, 3), grey.expand(1, 3, 4, 4))
    assert torch.equal(with_channels(torch.cat([grey, alpha], 1), 1), grey)
    assert torch.equal(with_channels(torch.cat([colour, alpha], 1), 3), colour)
    assert with_channels(colour, 3) is colour
    pillow = np.asarray(Image.fromarray(colour[0].permute(1, 2, 0).numpy()).convert("L"))
    assert (with_channels(colour, 1)[0, 0].numpy() == pillow).all()
