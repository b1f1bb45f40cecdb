"""Mirrors cdm_cli/nets/resnet.py."""

import pytest
import torch
from torch import nn

from cdm_cli.nets.resnet import build_cas_network, count_together


def meta(name, resolution, *, channels=3, num_classes=7):
    """Return the network, its logits' shape and the side of its last feature maps."""
    with torch.device("meta"):
        net = build_cas_network(
            name, resolution=resolution, channels=channels, num_classes=num_classes
        ).eval()
        seen = []
        if name != "small":
            net.layer4.register_forward_hook(lambda *args: seen.append(args[2].shape[-1]))
        logits = net(torch.empty(2, channels, resolution, resolution))
    return net, tuple(logits.shape), (seen or [None])[0]


@pytest.mark.parametrize(
    ("name", "resolution", "last"),
    [("resnet18", 8, 1), ("resnet50", 32, 4), ("resnet18", 63, 8), ("resnet18", 64, 2),
     ("resnet50", 64, 2)],
)  # fmt: skip
def test_small_images_are_not_shrunk_by_the_stem(name, resolution, last):
    net, shape, side = meta(name, resolution)
    assert shape == (2, 7)
    assert side == last
    small = resolution < 64
    assert net.conv1.kernel_size == ((3, 3) if small else (7, 7))
    assert net.conv1.stride == ((1, 1) if small else (2, 2))
    assert isinstance(net.maxpool, nn.Identity) == small


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("name", "resolution"), [("resnet18", 64), ("resnet18", 32), ("small", 8)])
def test_any_number_of_channels(name, resolution, channels):
    assert meta(name, resolution, channels=channels)[1] == (2, 7)


def test_resnet50_of_1000_classes_is_the_published_one():
    net, _, _ = meta("resnet50", 224, num_classes=1000)
    assert sum(p.numel() for p in net.parameters()) == 25_557_032


def test_residual_blocks_begin_as_the_identity():
    net = build_cas_network("resnet18", resolution=8, channels=3, num_classes=2)
    assert all(block.bn2.weight.abs().max() == 0 for block in net.layer1)


def test_batches_are_counted_together_and_not_where_a_step_fails():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
    x = torch.randn(3, 2, 4, 4)
    with count_together(net, 2):
        net(net(x))
        assert [norm.num_batches_tracked for norm in (net[0], net[2])] == [None, None]
    with pytest.raises(ValueError, match="expected 4D"), count_together(net, 2):
        net(x[0])
    assert {name: int(count) for name, count in net.state_dict().items() if "num" in name} == {
        "0.num_batches_tracked": 2, "2.num_batches_tracked": 2,
    }  # fmt: skip
