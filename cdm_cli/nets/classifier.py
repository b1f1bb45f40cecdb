"""A small residual classifier: its features and class probabilities judge samples.

Shapes: x is [B, C, H, W] in [-1, 1]; features are [B, D]; logits are [B, K].
"""

import torch.nn.functional as F
from torch import Tensor, nn

from cdm_cli.config import ClassifierConfig
from cdm_cli.nets.blocks import GroupNorm


class PreActivationBlock(nn.Module):
    """Norm, SiLU, convolution, twice (He et al. 2016b), with an optional stride."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = GroupNorm(channels_in, 16), GroupNorm(channels, 16)
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = channels_in == channels and stride == 1
        self.skip = None if same else nn.Conv2d(channels_in, channels, 1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, channels, H / stride, W / stride]."""
        h = self.norm_1(x, silu=True)
        if self.skip is not None:
            x = self.skip(h if self.stride == 1 else F.avg_pool2d(h, self.stride, ceil_mode=True))
        return x + self.conv_2(self.norm_2(self.conv_1(h), silu=True))


class Classifier(nn.Module):
    """Residual levels at falling resolution, global mean, one linear layer."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        assert config.num_classes > 0, "the number of classes comes from the data"
        self.config = config
        channels = config.base_channels
        self.conv_in = nn.Conv2d(config.channels, channels, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for level, mult in enumerate(config.channel_mult):
            for i in range(config.num_res_blocks):
                stride = 2 if level > 0 and i == 0 else 1
                blocks.append(PreActivationBlock(channels, mult * config.base_channels, stride))
                channels = mult * config.base_channels
        self.blocks = nn.Sequential(*blocks)
        self.norm_out = GroupNorm(channels, 16)
        self.head = nn.Linear(channels, config.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, D] and logits [B, K]."""
        h = self.blocks(self.conv_in(x.to(self.conv_in.weight.dtype)))
        features = self.norm_out(h, silu=True).mean(dim=(2, 3))
        return features, self.head(features)
