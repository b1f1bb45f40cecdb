"""The classifiers that CAS trains: torchvision's ResNets, and a small one for a CPU.

x is [B, C, H, W] in [-1, 1]; what comes out is logits [B, K]. ResNets begin with a stride of 4,
which would leave nothing of a small image: below 64 pixels the first convolution is 3×3 with
stride 1 and there is no pooling after it (He et al. 2016, Section 4.2). The last batch norm of
each residual block starts at 0 (Goyal et al. 2017).
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cdm_cli.config import ClassifierConfig
from cdm_cli.names import CasNet
from cdm_cli.nets.classifier import Classifier

SMALL_IMAGE = 64  # pixels from which on images get the stem for large ones


class SmallNet(nn.Module):
    """The residual classifier of `cdm train`, 16 channels wide, without batch norm."""

    def __init__(self, *, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = Classifier(
            ClassifierConfig(
                resolution=resolution,
                channels=channels,
                base_channels=16,
                channel_mult=(1, 2, 4),
                num_res_blocks=1,
                num_classes=num_classes,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K]."""
        return self.classifier(x)[1]


def build_cas_network(
    name: CasNet, *, resolution: int, channels: int, num_classes: int
) -> nn.Module:
    """Build an untrained network for images of a resolution."""
    if name == "small":
        return SmallNet(resolution=resolution, channels=channels, num_classes=num_classes)
    from torchvision import models  # takes a second, and what only reads a score needs none

    resnet = {"resnet18": models.resnet18, "resnet50": models.resnet50}[name]
    net = resnet(weights=None, num_classes=num_classes, zero_init_residual=True)
    if resolution < SMALL_IMAGE:
        net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        net.add_module("maxpool", nn.Identity())
    elif channels != net.conv1.in_channels:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return net


@contextmanager
def count_together(net: nn.Module, batches: int) -> Generator[None]:
    """Let the batch norms of a network count so many batches at the end, none within.

    Each count of each of them is a kernel, and nothing but checkpoints holds the counts.
    """
    norms = [norm for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    counts = [norm.num_batches_tracked for norm in norms]
    try:
        for norm in norms:
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count
    if counts:
        torch._foreach_add_(counts, batches)  # pyright: ignore
