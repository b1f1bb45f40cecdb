"""What judges images: features and class probabilities behind one protocol.

Images arrive as uint8 [B, C, H, W], on any device, straight from a store: no files of
single images on the way. An extractor is clean-fid's Inception, a classifier trained by
`cdm train NAME --preset classifier`, or any installed object with this protocol.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdm_cli.metrics.arithmetic import use_full_float32
from cdm_cli.metrics.resize import to_channels


class FeatureExtractor(Protocol):
    """Features and class probabilities of images, with all that names them.

    digest: SHA-256 of the weights. resize: how images reach the resolution of the network.
    """

    name: str
    digest: str
    feature_dim: int
    resize: str

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return float32 features [B, D] and probabilities [B, K], or None, of uint8 images."""
        ...


class ClassifierExtractor:
    """A classifier of our own: net(x) returns features [B, D] and logits [B, K].

    net: takes [B, channels, resolution, resolution] in [-1, 1]. digest: SHA-256 of its weights.
    """

    def __init__(
        self,
        net: nn.Module,
        resolution: int,
        digest: str,
        *,
        channels: int = 3,
        name: str = "classifier",
    ) -> None:
        self.net = net.eval()
        self.resolution, self.digest, self.channels, self.name = resolution, digest, channels, name
        self.resize = f"{resolution}×{resolution} bilinear, antialiased, float32"
        self.device = next(net.parameters()).device
        with torch.no_grad():
            size = (1, channels, resolution, resolution)
            self.feature_dim: int = self.net(torch.zeros(size, device=self.device))[0].shape[1]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, D] and probabilities [B, K] of images uint8 [B, C, H, W]."""
        x = to_channels(images.to(self.device), self.channels).float()
        if x.shape[2:] != (self.resolution, self.resolution):
            size = (self.resolution, self.resolution)
            x = functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        with use_full_float32():
            features, logits = self.net(x / 127.5 - 1)
        return features.float(), torch.softmax(logits.float(), dim=1)
