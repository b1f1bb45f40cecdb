"""One network, two speeds: the same stage in the precision and form that a device runs best.

Equivalence is checked, not assumed: the fast path equals the plain float32 path within
bfloat16 rounding (tests/cascade/test_fast.py, benchmarks/network_speed.py).
"""

import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from cdm_cli.cascade.stage import Stage, uses_bf16

_TRUNK = (nn.Conv2d, nn.Linear)


def for_sampling(stage: Stage, *, compiled: bool) -> Stage:
    """Prepare a stage for network evaluations, in place.

    With bf16, the weights of convolutions and projections are rounded once (the embeddings
    and norms stay float32). compiled: one program for the one shape of all batches, made at
    the first call.
    """
    stage.net.eval().requires_grad_(False)
    if uses_bf16(stage.precision, stage.device):
        for name, module in stage.net.named_modules():
            if isinstance(module, _TRUNK) and not name.startswith("embed_"):
                module.to(torch.bfloat16)
    _ordered(stage)
    if compiled:
        keep_programs()
        stage.net.denoise = torch.compile(stage.net.denoise, dynamic=False)
    return stage


def for_training(stage: Stage, *, compiled: bool) -> Stage:
    """Prepare a stage for training steps, in place: float32 weights, bf16 by autocast."""
    _ordered(stage)
    if compiled:
        compile_net(stage.net)
    return stage


def compile_net(net: nn.Module) -> None:
    """Make one program of the network for each shape it meets, at its first use."""
    keep_programs()
    net.compile(dynamic=False)


def keep_programs() -> None:
    """Let compiled programs outlast the process, in the user's cache directory.

    torch's own default is the directory of temporary files, which a restart empties. A place
    that the environment names already (TORCHINDUCTOR_CACHE_DIR) stays.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = Path(home) / "cdm" / "compiled"
    with suppress(OSError):  # a home that cannot be written: torch's default does
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))


def _ordered(stage: Stage) -> None:
    if stage.device.type == "cuda":
        stage.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
