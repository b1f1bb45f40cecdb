"""Mirrors cdm_cli/metrics/features.py."""

import pytest
import torch
from torch import nn

from cdm_cli.metrics.features import ClassifierExtractor
from tests.metrics.whole import extract


class Means(nn.Module):
    """Features: the mean of each channel; logits: ten times those."""

    def __init__(self, channels=3):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 10.0))

    def forward(self, x):
        self.seen = x
        features = x.mean((2, 3))
        return features, features * self.scale


def test_classifier_sees_minus_one_to_one_at_its_resolution():
    net = Means()
    extractor = ClassifierExtractor(net, 8, "digest")
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[1] = 255
    features, probabilities = extractor(images)
    assert net.seen.shape == (2, 3, 8, 8)
    assert features.tolist() == [[-1.0] * 3, [1.0] * 3]
    assert probabilities.sum(1).tolist() == pytest.approx([1, 1])
    assert extractor.feature_dim == 3


@pytest.mark.parametrize("size", [4, 8, 16])
def test_grey_images_are_adapted(size):
    extractor = ClassifierExtractor(Means(), 8, "digest")
    features, _ = extractor(torch.full((1, 1, size, size), 255, dtype=torch.uint8))
    assert features.tolist() == [[1.0] * 3]


def test_images_at_the_resolution_are_not_touched():
    net = Means(1)
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    ClassifierExtractor(net, 8, "digest", channels=1)(images)
    assert torch.equal(net.seen, images.float() / 127.5 - 1)


def test_extract_keeps_order_over_batches():
    extractor = ClassifierExtractor(Means(), 8, "digest")
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 8, 8)
    whole = extract(extractor, [images])
    pieces = extract(extractor, [images[:3], images[3:]])
    assert torch.equal(whole.features, pieces.features)
    assert pieces.probabilities.shape == (7, 3)
