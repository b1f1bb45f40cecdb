"""What decides the last bit of a sample, besides stage, chain and seed.

That is the batch, the precision, and whether the network is compiled. They follow from the flags
and the class of the device, unless its memory is taken (`ready.halve_until_fits`), and a store
carries them in its provenance, for the run that continues.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.fast import is_worth_compiling
from cdm_cli.config import ModelConfig, StageConfig
from cdm_cli.jobs.runtime.device import choose_precision, describe_build, name_device_class
from cdm_cli.jobs.runtime.identity import advise_another, check_same
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.names import Precision
from cdm_cli.nets.layout import plan_down, plan_up

MOST_PIXELS = {"cpu": 2**16, "cuda": 2**20}  # of a compute batch; more run no faster
MOST = {"cpu": 64, "cuda": 1024}
FLOAT32 = 4
DECIDE = ("batch_size", "precision", "compiled")  # of numerics, what a flag may ask for


@dataclass(frozen=True)
class Numerics:
    """What decides the last bit of a sample, besides stage, chain and seed.

    build: cdm and the libraries that compute; another one may round otherwise.
    """

    batch_size: int
    precision: Precision
    compiled: bool
    device: str
    build: str


def choose_numerics(
    config: StageConfig,
    session: Session,
    evaluations: int,
    recorded: Mapping[str, Any] | None = None,
    most_at_once: int | None = None,
) -> Numerics:
    """Fix batch, precision and compilation of a run of so many evaluations in all.

    Each is what its flag says, else what `recorded` says, the numerics of the run that is being
    continued, else what the device runs best: a batch that keeps it busy, bf16 on a GPU that has
    it, compiled where the run is long enough. most_at_once: samples that are made at a time; a
    larger batch would be filled up in vain.
    """
    begun, compute, device = recorded or {}, session.compute, session.device
    batch_size = compute.batch_size or begun.get("batch_size")
    if batch_size is None:
        batch_size = choose_batch(config, device, most_at_once)
    precision = choose_precision(compute.precision, device)
    if compute.precision == "auto":
        precision = begun.get("precision", precision)
    compiled = begun.get("compiled") if compute.compile is None else compute.compile
    if compiled is None:
        compiled = is_worth_compiling(config, device, evaluations)
    return Numerics(
        batch_size, precision, compiled, name_device_class(device), describe_build(device)
    )


def check_same_numerics(recorded: Mapping[str, Any], now: Numerics, path: Path) -> None:
    """Raise WouldOverwriteError where a flag contradicts the run that is being continued."""
    names = [name for name in DECIDE if recorded.get(name) is not None]
    check_same(
        path, "computation, samples would differ in their last bits",
        {name: recorded[name] for name in names}, {name: getattr(now, name) for name in names},
        next=f"leave the flag away, or {advise_another(path)}",
    )  # fmt: skip


def choose_batch(config: StageConfig, device: torch.device, most_at_once: int | None = None) -> int:
    """Return a batch at which the device is busy and half of its memory is enough.

    At most 64 images and 2^16 pixels on a CPU, 1024 and 2^20 on a GPU. most_at_once: how many there
    are to fill it, which are divided evenly. Without it, a power of two.
    """
    pixels = config.model.resolution**2
    batch = max(1, min(MOST[device.type], MOST_PIXELS[device.type] // pixels))
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // 2
        batch = min(batch, max(1, room // estimate_image_bytes(config.model)))
    if most_at_once is None:
        return 2 ** (batch.bit_length() - 1)
    return math.ceil(most_at_once / math.ceil(most_at_once / batch))


def estimate_image_bytes(model: ModelConfig) -> int:
    """Return about the memory of one image in a network evaluation, in float32.

    The way down is kept for the way up; the widest cell holds a handful of copies of itself. On a
    CPU a batch of a preset was measured to take 0.65 to 1.5 of it, and up to 100 MiB beside.
    """
    kept = widest = model.base_channels * model.resolution**2
    side = model.resolution
    for plan in plan_down(model):
        side = side // 2 if plan.resize else side
        kept += plan.channels * side**2
    for plan in plan_up(model):
        widest = max(widest, plan.channels_in * side**2)
        side = side * 2 if plan.resize else side
    return FLOAT32 * (kept + 6 * widest)
