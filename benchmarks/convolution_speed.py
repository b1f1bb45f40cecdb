"""Convolutions in the form that `nets.convolution` gives them, beside PyTorch's own.

    python benchmarks/convolution_speed.py

First that of a doubled image, by phases on the small one, whatever its number of channels; then
that of 256 and 128 channels joined, whose weights have their gradient in parts. Shapes are those
of the ImageNet presets. A way back is timed with the way there. Error: of the output beside
float32, relative.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import machine
from network_speed import seconds_per_call
from torch import Tensor

from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.nets.convolution import convolve, double
from cdm_cli.nets.kernels.phases import enlarge_by_phases

DOUBLED = [
    (256, 512, 32),
    (256, 768, 16),
    (256, 1024, 8),
    (128, 512, 64),
    (128, 768, 32),
    (128, 1024, 16),
    (16, 256, 256),
    (16, 512, 128),
    (16, 512, 64),
    (16, 1024, 32),
]  # batch, channels, side of the doubled image
JOINED = [(16, 384, 128, 256), (16, 384, 256, 128)]  # batch, channels in and out, side
Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


def drawn(batch: int, channels: int, channels_out: int, side: int) -> tuple[Tensor, ...]:
    """Draw bfloat16 activations, channels-last, and the float32 weights and bias of training."""
    x = torch.randn(batch, channels, side, side, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(channels_out, channels, 3, 3, device="cuda") / (3 * channels**0.5)
    last = torch.channels_last
    pair = x.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    return *(tensor.requires_grad_() for tensor in pair), torch.randn(channels_out, device="cuda")


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's convolution."""
    return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1)


def of_doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's convolution of the doubled image."""
    return plain(double(x), weight, bias)


def by_phases(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Ours of the small image."""
    return enlarge_by_phases(x, weight, bias)[0]


def in_parts(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Ours of joined channels."""
    return convolve(x, weight) + bias.to(x.dtype)[:, None, None]


def there_and_back(call: Convolution, inputs: tuple[Tensor, ...]) -> list[float]:
    """Return the seconds of a call without gradients, and of one with both gradients."""
    with torch.no_grad():
        there, dy = seconds_per_call(lambda: call(*inputs)), torch.randn_like(call(*inputs))
    both = seconds_per_call(lambda: torch.autograd.grad(call(*inputs), inputs[:2], dy))
    return [there, both]


@torch.no_grad()
def error(ours: Convolution, theirs: Convolution, inputs: tuple[Tensor, ...]) -> float:
    """Return the relative error of ours, one image of it."""
    x, weight, bias = inputs
    exact = theirs(x[:1].float(), weight, bias)
    return float((ours(x[:1], weight, bias).float() - exact).norm() / exact.norm())


def compare(name: str, ours: Convolution, theirs: Convolution, inputs: tuple[Tensor, ...]) -> None:
    """Print the row of one shape."""
    sides = [there_and_back(call, inputs) for call in (theirs, ours)]
    columns = (f"{a * 1e3:8.3f} {b * 1e3:8.3f} {a / b:6.2f}" for a, b in zip(*sides, strict=True))
    print(f"{name:28s} {' '.join(columns)} {error(ours, theirs, inputs):9.4f}", flush=True)


def main() -> None:
    """Print milliseconds of PyTorch's form and of ours, and their ratio, there and both ways."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.manual_seed(0)
    make_deterministic(torch.device("cuda"))
    print(machine())
    ways = (f"{way:>8s} {'ours':>8s} {'ratio':>6s}" for way in ("there", "both"))
    print(f"{'':28s} {' '.join(ways)} {'error':>9s}")
    for batch, channels, side in DOUBLED:
        inputs = drawn(batch, channels, channels, side // 2)
        compare(f"doubled {batch} x {side}x{side}, {channels}", by_phases, of_doubled, inputs)
    for batch, channels, channels_out, side in JOINED:
        inputs = drawn(batch, channels, channels_out, side)
        compare(f"joined {batch} x {side}x{side}, {channels}", in_parts, plain, inputs)


if __name__ == "__main__":
    main()
