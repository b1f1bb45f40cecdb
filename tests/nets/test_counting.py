"""Mirrors cdm_cli/nets/counting.py: counts by hand, and the table of a measured peer."""

import pytest
import torch
from torch import nn

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.config import ClassifierConfig
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.counting import bound_flops_per_image, count_flops_per_image, count_parameters
from cdm_cli.presets import PRESETS, preset
from tests.nets.drawing import tiny
from tests.nets.test_unet import of_preset


def test_parameters_of_a_convolution():
    assert count_parameters(nn.Conv2d(3, 8, 3)) == 3 * 8 * 9 + 8


def test_flops_of_a_classifier_by_hand():
    config = ClassifierConfig(
        resolution=8, channels=1, base_channels=16, channel_mult=(1,), num_res_blocks=1,
        num_classes=5,
    )  # fmt: skip
    convolutions = 64 * 9 * (1 * 16 + 16 * 16 + 16 * 16)
    assert count_flops_per_image(Classifier(config)) == 2 * (convolutions + 16 * 5)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("imagenet-base32", 142), ("imagenet-sr32-64", 466), ("imagenet-sr64-256", 1544)],
)
def test_flops_of_appendix_b(name, billions):
    assert round(count_flops_per_image(of_preset(name)) / 1e9) == billions


@pytest.mark.parametrize("name", sorted(n for n in PRESETS if "classifier" not in n))
def test_what_sizes_alone_say_is_more(name):
    net = build_empty_net(preset(name).stage)
    assert count_flops_per_image(net) <= bound_flops_per_image(net)


def test_counting_leaves_the_network_as_it_was():
    net = tiny()
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert count_flops_per_image(net) > 0
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())
    assert all(p.device.type == "cpu" for p in net.parameters())
