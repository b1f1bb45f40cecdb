"""Small networks with random weights everywhere, and inputs that fit them."""

import torch
from torch import Tensor, nn

from cdm_cli.config import ModelConfig
from cdm_cli.nets.unet import UNet

SMALL = ModelConfig(
    resolution=16,
    base_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    num_classes=10,
)


def randomised(net: nn.Module, std: float = 0.08) -> nn.Module:
    """Overwrite all parameters, the zero-initialised ones too."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * std
        is_gain = "norm" in name and name.endswith("weight")
        parameter.data.copy_(noise + 1 if is_gain else noise)
    return net


def tiny(**changes: object) -> UNet:
    """Return a conditioned 16x16 network with every input."""
    config = ModelConfig.model_validate(SMALL.model_dump() | changes)
    net = UNet(config, out_channels=6, conditioned=True, embeds_s=True)
    randomised(net)
    return net


def inputs(net: UNet, num: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return x_t, t, z_s, s, y."""
    generator = torch.Generator().manual_seed(2)
    side, channels = net.config.resolution, net.config.channels
    x_t = torch.randn(num, channels, side, side, generator=generator)
    z_s = torch.randn(num, channels, side // 2, side // 2, generator=generator)
    t, s = 100 * torch.rand(2, num, generator=generator)
    y = torch.randperm(net.config.num_classes, generator=generator)[:num]
    return x_t, t, z_s, s, y
