"""The fused normalisation by one kernel and by many programs an image, beside PyTorch's own.

    python benchmarks/norm_speed.py [--tiles 4096,8192 --warps 8,16 --widths 32,64]

Shapes are those of imagenet-base32, batch 256, and imagenet-sr64-256, batch 16. Calls are
replayed from a CUDA graph, so that no launch is timed. GB/s counts every number that has to be
read or written once, whatever a side really moves; a copy is measured in the same run.
"""

import argparse
from collections.abc import Callable
from itertools import product
from unittest.mock import patch

import torch
import torch.nn.functional as F
from machine import machine
from network_speed import seconds_per_call
from torch import Tensor

from cdm_cli.nets.kernels import fused_norm, fused_sum, split_norm
from cdm_cli.nets.kernels.dropout import new_seed

SHAPES = [
    (256, 32, 256, 0), (256, 32, 512, 256), (256, 16, 512, 0), (256, 16, 512, 512),
    (256, 8, 768, 768), (256, 4, 1024, 0), (128, 64, 256, 0), (16, 64, 256, 256),
    (16, 128, 256, 128), (16, 256, 128, 0), (16, 256, 128, 128),
]  # fmt: skip
GROUPS, IN_A_GRAPH = 32, 20


def tensors(batch: int, side: int, channels: int) -> Tensor:
    """Draw activations in channels-last order."""
    x = torch.randn(batch, channels, side, side, device="cuda", dtype=torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last)


def replayed(call: Callable[[], object]) -> float:
    """Return the seconds of one call among many in a CUDA graph."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(IN_A_GRAPH):
            call()
    return seconds_per_call(graph.replay) / IN_A_GRAPH


def sides(x: Tensor, other: Tensor | None) -> dict[str, Callable[[], object]]:
    """Every way from x and other to SiLU of the norm of both, and the fused way back."""
    both = x if other is None else torch.cat([x, other], 1)
    gain, offset = torch.randn(2, both.shape[1], both.shape[0], device="cuda")
    tokens = _tokens(x), _tokens(x)[..., :0] if other is None else _tokens(other)
    inputs = (*tokens, gain, offset, gain[:, :0])
    unknown = (gain[:0], gain[:0])
    branch, bias = torch.randn_like(tokens[0]), torch.randn(x.shape[1], device="cuda")
    one, two = (fused_sum.launch(z, z, z[..., :0], bias[: z.shape[2]], 1.0)[1] for z in tokens)
    known = one, two

    def joined() -> Tensor:
        return x if other is None else torch.cat([x, other], 1)

    def pytorch() -> Tensor:
        normed = F.group_norm(joined(), GROUPS)
        return F.silu(normed * gain.t()[:, :, None, None] + offset.t()[:, :, None, None])

    seed = new_seed(x.device)
    more, dropping = (seed, GROUPS, True, 0.0), (seed, GROUPS, True, 0.1)
    y, mean, rstd = fused_norm.launch_forward(*inputs, *unknown, *more)
    back = (*inputs, mean, rstd, y)

    def one_kernel(call: Callable[..., object], *what: object) -> Callable[[], object]:
        def run() -> object:
            with patch.object(fused_norm, "MOST_PIXELS", 2**30):
                return call(*what)

        return run

    return {
        "one kernel": one_kernel(fused_norm.launch_forward, *inputs, *unknown, *more),
        "many programs": lambda: split_norm.forward(*inputs, *unknown, *more),
        "sums known": lambda: split_norm.forward(*inputs, *known, *more),
        "one kernel, backward": one_kernel(fused_norm.launch_backward, *back, *more),
        "many programs, backward": lambda: split_norm.backward(*back, *more),
        "with dropout": lambda: fused_norm.launch_forward(*inputs, *unknown, *dropping),
        "with dropout, backward": lambda: fused_norm.launch_backward(*back, *dropping),
        "PyTorch": pytorch,
        "dropout": lambda: torch.dropout(both, 0.1, True),
        "a copy": both.clone,
        "sum of two, with sums": lambda: fused_sum.launch(
            tokens[0], branch, branch[..., :0], bias, 1.0
        ),
        "sum of two": lambda: tokens[0] + branch,
    }


def _tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def show(name: str, call: Callable[[], object], x: Tensor, other: Tensor | None) -> float:
    """Time a call and print its row: the way back and a sum read twice what they write."""
    moved = x.nbytes * 2
    if "sum of" not in name and other is not None:
        moved += other.nbytes * 2
    if "sum of" in name or "backward" in name:
        moved = moved * 3 // 2
    seconds = replayed(call)
    print(f"{name:44s} {seconds * 1e6:8.0f} us {moved / seconds / 1e9:8.0f} GB/s", flush=True)
    return seconds


def numbers(words: str) -> list[int]:
    """Read numbers between commas."""
    return [int(word) for word in words.split(",") if word]


def main() -> None:
    """Print microseconds and GB/s of every side, and of the fused kernels by their tile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", default="", help="also in other tiles, by numbers held")
    parser.add_argument("--warps", default="8,16", help="warps of each other tile")
    parser.add_argument("--widths", default="32,64", help="channels of each other tile at least")
    arguments = parser.parse_args()
    print(machine())
    for batch, side, first, second in SHAPES:
        x = tensors(batch, side, first)
        other = tensors(batch, side, second) if second else None
        megabytes = 2 * batch * (first + second) * side**2 / 1e6
        print(
            f"\n{batch} x {side}x{side}, {first} + {second} channels, {megabytes:.0f} MB each way"
        )
        calls = sides(x, other)
        seconds = {name: show(name, call, x, other) for name, call in calls.items()}
        one, many = (seconds["PyTorch"] / seconds[name] for name in ("one kernel", "many programs"))
        print(f"ratio to PyTorch: one kernel {one:.1f}, many programs {many:.1f}")
        ways = (arguments.tiles, arguments.warps, arguments.widths)
        for tile, warps, width in product(*map(numbers, ways)):
            with patch.multiple(fused_norm, RESIDENT=0, TILE=tile, TILE_WARPS=warps, WIDTH=width):
                for name in ("one kernel", "one kernel, backward"):
                    show(f"{name}, {tile} by {width}, {warps} warps", calls[name], x, other)


if __name__ == "__main__":
    main()
