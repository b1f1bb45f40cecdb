"""Attention whose way back is made of matrix products, beside PyTorch's own.

    python benchmarks/attention_speed.py

Shapes are those of the ImageNet presets, whether or not `nets.attention` takes them. A way back is
timed with the way there, replayed as one CUDA graph. Errors: of the gradients beside float64,
relative, of PyTorch's and of ours.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import machine
from network_speed import seconds_per_call
from torch import Tensor

from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.nets.attention import attend_by_products

SHAPES = {
    "imagenet-base32": [(256, 4, 256, 128), (256, 4, 64, 192), (256, 4, 16, 256)],
    "imagenet-sr32-64": [(128, 4, 256, 192), (128, 4, 64, 256)],
    "imagenet-sr64-128": [(32, 1, 256, 1024)],
    "imagenet-sr64-256": [(16, 1, 256, 1024)],
}  # batch, heads, positions, channels of a head
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def drawn(batch: int, heads: int, positions: int, channels: int) -> tuple[Tensor, ...]:
    """Draw q, k and v in bfloat16, parts of one projection, as blocks have them."""
    size = batch, positions, heads, 3, channels
    qkv = torch.randn(size, device="cuda", dtype=torch.bfloat16)
    return tuple(part.transpose(1, 2).requires_grad_() for part in qkv.unbind(3))


def gradients(call: Attention, inputs: tuple[Tensor, ...], dy: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of q, k and v."""
    return torch.autograd.grad(call(*inputs), inputs, dy.to(inputs[0].dtype))


def replayed(call: Attention, inputs: tuple[Tensor, ...], dy: Tensor) -> Callable[[], None]:
    """Return the replay of all kernels of `gradients`."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        gradients(call, inputs, dy)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):
        gradients(call, inputs, dy)
    return graph.replay


def error(call: Attention, inputs: tuple[Tensor, ...], dy: Tensor) -> float:
    """Return the relative error of the gradients, of one image."""
    inputs, dy = tuple(part[:1] for part in inputs), dy[:1]
    exact = torch.stack(
        gradients(F.scaled_dot_product_attention, tuple(part.double() for part in inputs), dy)
    )
    found = torch.stack(gradients(call, inputs, dy)).double()
    return float((found - exact).norm() / exact.norm())


def compare(name: str, shape: tuple[int, int, int, int]) -> None:
    """Print the row of one shape."""
    inputs = drawn(*shape)
    dy = torch.randn_like(inputs[0])
    calls: list[Attention] = [F.scaled_dot_product_attention, attend_by_products]
    theirs, ours = (seconds_per_call(replayed(call, inputs, dy)) for call in calls)
    errors = " ".join(f"{error(call, inputs, dy):8.4f}" for call in calls)
    times = f"{theirs * 1e3:8.3f} {ours * 1e3:8.3f} {theirs / ours:6.2f}"
    print(f"{name:18s} {shape!s:20s} {times} {errors}", flush=True)


def main() -> None:
    """Print milliseconds there and back of PyTorch's attention and of ours, and both errors."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.manual_seed(0)
    make_deterministic(torch.device("cuda"))
    print(machine())
    print(f"{'':39s} {'PyTorch':>8s} {'ours':>8s} {'ratio':>6s} {'errors':>8s}")
    for name, shapes in SHAPES.items():
        for shape in shapes:
            compare(name, shape)


if __name__ == "__main__":
    main()
