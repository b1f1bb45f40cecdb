"""The fused normalisation beside two kernels of the compiler's kind and beside PyTorch's own.

    python benchmarks/norm_speed.py [--tiles 4096,8192,32768]

Shapes are those of imagenet-base32, batch 256, forward and (the fused kernel) backward. Calls are
replayed from a CUDA graph, so that no launch is timed. GB/s counts every number that has to be
read or written once, whatever a side really moves; a copy is measured in the same run.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from network_speed import seconds_per_call
from torch import Tensor

from cdm_cli.nets import fused_norm
from cdm_cli.nets.normalise import group_norm_by_moments

SHAPES = [(32, 256, 0), (32, 512, 256), (16, 512, 0), (16, 512, 512), (8, 768, 768), (4, 1024, 0)]
BATCH, GROUPS, CALLS = 256, 32, 20


def tensors(side: int, channels: int) -> Tensor:
    """Draw activations in channels-last order."""
    x = torch.randn(BATCH, channels, side, side, device="cuda", dtype=torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last)


def replayed(call: Callable[[], object]) -> float:
    """Return the seconds of one call among many in a CUDA graph."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    return seconds_per_call(graph.replay, 5) / CALLS


def sides(x: Tensor, other: Tensor | None) -> dict[str, Callable[[], object]]:
    """Every way from x and other to SiLU of the norm of both, and the fused way back."""
    both = x if other is None else torch.cat([x, other], 1)
    gain, offset = torch.randn(2, BATCH, both.shape[1], device="cuda")
    tokens = [_tokens(x), _tokens(x)[..., :0] if other is None else _tokens(other)]
    inputs = (*tokens, gain, offset, gain[:0])

    def joined() -> Tensor:
        return x if other is None else torch.cat([x, other], 1)

    @torch.compile(dynamic=False)
    def two_kernels() -> Tensor:
        return F.silu(group_norm_by_moments(joined(), GROUPS, gain, offset))

    def pytorch() -> Tensor:
        normed = F.group_norm(joined(), GROUPS)
        return F.silu(normed * gain[:, :, None, None] + offset[:, :, None, None])

    y, mean, rstd = fused_norm.launch_forward(*inputs, GROUPS, True)
    return {
        "fused": lambda: fused_norm.launch_forward(*inputs, GROUPS, True),
        "fused, backward": lambda: fused_norm.launch_backward(*inputs, mean, rstd, y, GROUPS, True),
        "two kernels": two_kernels,
        "PyTorch": pytorch,
        "a copy": both.clone,
    }


def _tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def show(name: str, call: Callable[[], object], moved: int) -> None:
    """Time a call and print its row; the way back reads twice and writes once."""
    moved = moved * 3 // 2 if "backward" in name else moved
    seconds = replayed(call)
    print(f"{name:32s} {seconds * 1e6:8.0f} us {moved / seconds / 1e9:8.0f} GB/s", flush=True)


def main() -> None:
    """Print microseconds and GB/s of every side, and of the fused kernels by their tile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", default="", help="also other tiles, by numbers held")
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    default = fused_norm.TILE
    for side, first, second in SHAPES:
        x, other = tensors(side, first), tensors(side, second) if second else None
        moved = 4 * BATCH * (first + second) * side**2
        print(f"\n{side}x{side}, {first} + {second} channels, {moved / 2e6:.0f} MB each way")
        torch.compiler.reset()
        calls = sides(x, other)
        for name, call in calls.items():
            show(name, call, moved)
        for tile in (int(word) for word in arguments.tiles.split(",") if word):
            fused_norm.TILE = tile
            for name in ("fused", "fused, backward"):
                show(f"{name}, tile {tile}", calls[name], moved)
        fused_norm.TILE = default


if __name__ == "__main__":
    main()
