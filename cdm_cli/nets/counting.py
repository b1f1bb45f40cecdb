"""Parameters and operations of a network, counted without running it."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cdm_cli.nets.blocks import Attention
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.unet import UNet

FORWARD_AND_BACKWARD = 3  # the backward pass takes twice the operations of the forward pass


def count_parameters(net: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_flops_per_image(net: UNet | Classifier) -> int:
    """Return the FLOPs of one forward pass of one image: 2 per multiply-add.

    Matrix products, convolutions and attention are counted, as is usual; the pass runs on the meta
    device, whose tensors have no storage, wherever the network itself is.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    tensors = {name: p.detach().to("meta") for name, p in net.named_parameters()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(net, tensors, build_meta_inputs(net))
    return counter.get_total_flops()


def bound_flops_per_image(net: UNet | Classifier) -> int:
    """Return more than `count_flops_per_image`, which loads torch's compiler and takes seconds.

    Every weight meets every pixel once at most, and attention compares each two pixels.
    """
    pixels = net.config.resolution**2
    widest = max(parameter.shape[0] for parameter in net.parameters())
    attending = sum(isinstance(module, Attention) for module in net.modules())
    return 2 * pixels * count_parameters(net) + attending * 4 * pixels**2 * widest


def build_meta_inputs(net: UNet | Classifier) -> tuple[Tensor | None, ...]:
    """Return arguments of `net.forward` for one image, on the meta device."""
    config = net.config
    x = torch.empty(1, config.channels, config.resolution, config.resolution, device="meta")
    if isinstance(net, Classifier):
        return (x,)
    number = torch.empty(1, device="meta")
    z_s = x if net.conditioned else None
    s = number if net.embed_s is not None else None
    y = number.long() if net.embed_y is not None else None
    return x, number, z_s, s, y
