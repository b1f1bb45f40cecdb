"""One network, two speeds: the same stage in the precision and form that a device runs best.

Equivalence is checked, not assumed: the fast path equals the plain float32 path within
bfloat16 rounding (tests/cascade/test_fast.py, benchmarks/network_speed.py).
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.stage import Stage, uses_bf16
from cdm_cli.config import AnyStageConfig
from cdm_cli.nets.convolution import EnlargingConv
from cdm_cli.nets.counting import bound_flops_per_image, count_flops_per_image
from cdm_cli.nets.kernels.recorded import Recorded
from cdm_cli.nets.unet import Condition

WORTH_COMPILING = 4e18  # FLOPs: two hours of a GPU; the compiler's minutes are a few percent
_TRUNK = (nn.Conv2d, nn.Linear)
Around = Callable[[], AbstractContextManager[None]]


def make_fast(stage: Stage, *, compiled: bool, compiling: Around = nullcontext) -> Stage:
    """Return the stage with its network in the form that evaluates it fastest.

    Its weights are changed in place and trained no more: with bf16, those of convolutions and
    projections are rounded once; embeddings and norms stay float32, and so do weights of which sums
    are rounded. compiled: torch makes one program, for the one shape of all batches, at the first
    call, which is made within `compiling()`. On CUDA, kernels are recorded for each shape that
    comes a second time.
    """
    stage.net.eval().requires_grad_(False)
    if uses_bf16(stage.precision, stage.device):
        for name, module in stage.net.named_modules():
            kept = name.startswith("embed_") or isinstance(module, EnlargingConv)
            if isinstance(module, _TRUNK) and not kept:
                module.to(torch.bfloat16)
    if stage.device.type == "cuda":
        stage.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if compiled:
        _prepare_compiling()
        program = torch.compile(stage.denoise, dynamic=False)
        stage = stage.with_denoise(_make_first_call(program, compiling))
    return record_kernels(stage) if stage.device.type == "cuda" else stage


def _make_first_call(call: Callable[..., Tensor], around: Around) -> Callable[..., Tensor]:
    """Return a function whose first call is made within around()."""
    fresh = [around]

    def call_around(*inputs: object) -> Tensor:
        with fresh.pop()() if fresh else nullcontext():
            return call(*inputs)

    return call_around


def record_kernels(stage: Stage) -> Stage:
    """Return a stage that records the network's kernels as a CUDA graph and replays them.

    One recording is kept, of the last shape of inputs; `Stage.release` drops it.
    """
    denoise = stage.denoise

    def evaluate(x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor]:
        return (denoise(x_t, t, condition),)

    recorded = Recorded(evaluate)

    def call(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (output,) = recorded(x_t, t, condition)
        assert output is not None
        return output.clone()

    return stage.with_denoise(call, recorded.forget)


def is_worth_compiling(config: AnyStageConfig, device: torch.device, evaluations: int) -> bool:
    """Return whether compiling first makes a run of so many image evaluations shorter."""
    if device.type != "cuda":
        return False
    net = build_empty_net(config)
    if evaluations * bound_flops_per_image(net) < WORTH_COMPILING:
        return False
    return evaluations * count_flops_per_image(net) >= WORTH_COMPILING


def compile_net(net: nn.Module) -> None:
    """Make one program of the network for each shape it meets, at its first use."""
    _prepare_compiling()
    net.compile(dynamic=False)


def _prepare_compiling() -> None:
    """Register the operators that the compiler is to find, and keep what it makes."""
    from cdm_cli.nets.kernels import (
        fused_norm,  # noqa: F401  # pyright: ignore[reportUnusedImport]
        fused_sum,  # noqa: F401  # pyright: ignore[reportUnusedImport]
        phases,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    )
    from cdm_cli.nets.kernels.operators import show_to_compiler

    show_to_compiler()

    keep_programs()


def keep_programs() -> None:
    """Let compiled programs outlast the process, in the user's cache directory.

    torch's own default is the directory of temporary files, which a restart empties. A place
    that the environment names already (TORCHINDUCTOR_CACHE_DIR) stays.
    """
    place = find_cache_directory("compiled")
    with suppress(OSError):  # a home that cannot be written: torch's default does
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))


def find_cache_directory(name: str) -> Path:
    """Return where what may be lost is kept between runs, in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "cdm" / name
