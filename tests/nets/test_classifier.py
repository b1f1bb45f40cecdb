"""Mirrors cdm_cli/nets/classifier.py."""

import pytest
import torch

from cdm_cli.config import ClassifierConfig
from cdm_cli.nets.classifier import Classifier
from tests.nets.drawing import randomised


@pytest.mark.parametrize("resolution", [5, 8, 32])
def test_shapes(resolution):
    config = ClassifierConfig(resolution=resolution, base_channels=16, num_classes=7)
    net = Classifier(config)
    features, logits = net(torch.randn(2, 3, resolution, resolution))
    assert features.shape == (2, 64)
    assert logits.shape == (2, 7)


def test_logits_are_linear_in_the_features():
    net = randomised(Classifier(ClassifierConfig(resolution=8, base_channels=16, num_classes=4)))
    features, logits = net(torch.randn(3, 3, 8, 8))
    assert torch.allclose(logits, features @ net.head.weight.T + net.head.bias, atol=1e-5)


def test_it_learns_to_tell_bright_from_dark():
    torch.manual_seed(0)
    net = Classifier(
        ClassifierConfig(resolution=8, base_channels=8, channel_mult=(1, 2), num_res_blocks=1,
                         num_classes=2)
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    y = torch.arange(32) % 2
    for _ in range(20):
        x = 0.3 * torch.randn(32, 3, 8, 8) + (2 * y - 1).float().view(-1, 1, 1, 1) * 0.5
        loss = torch.nn.functional.cross_entropy(net(x)[1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(x)[1].argmax(1) == y).float().mean() > 0.9
