"""A stage made ready to sample: loaded, in its precision, with a batch that fits the device.

The batch, the precision and whether the network is compiled decide the last bit of a sample.
They follow from the flags and the class of the device, unless its memory is taken
(`make.halve_until_fits`), and a store carries them in its provenance, for the run that continues.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.checkpoint import empty_net, load_diffusion_stage, weights_file
from cdm_cli.cascade.fast import for_sampling, worth_compiling
from cdm_cli.cascade.stage import Stage
from cdm_cli.cascade.weights import read_weights
from cdm_cli.config import ModelConfig, StageConfig
from cdm_cli.jobs.runtime.device import build, choose_precision, device_class
from cdm_cli.jobs.runtime.identity import check_same
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.names import RUNS, Precision
from cdm_cli.nets.layout import down_plan, up_plan
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.startup import part

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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for provenance."""
        return asdict(self)


def choose_numerics(
    config: StageConfig,
    session: Session,
    evaluations: int,
    before: Mapping[str, Any] | None = None,
    most: int | None = None,
) -> Numerics:
    """Fix batch, precision and compilation of a run of so many evaluations in all.

    before: those of the run that is being continued, which hold unless a flag says otherwise.
    most: samples that are made at a time; a larger batch would be filled up in vain.
    """
    held, compute, device = before or {}, session.compute, session.device
    batch_size = compute.batch_size or held.get("batch_size")
    if batch_size is None:
        batch_size = default_batch(config, device, most)
    precision = choose_precision(compute.precision, device)
    if compute.precision == "auto":
        precision = held.get("precision", precision)
    compiled = held.get("compiled") if compute.compile is None else compute.compile
    if compiled is None:
        compiled = worth_compiling(config, device, evaluations)
    return Numerics(batch_size, precision, compiled, device_class(device), build(device))


def check_same_numerics(before: Mapping[str, Any], now: Numerics, path: Path) -> None:
    """Raise WouldOverwriteError where a flag contradicts the run that is being continued."""
    names = [name for name in DECIDE if before.get(name) is not None]
    check_same(
        path, "computation, samples would differ in their last bits",
        {name: before[name] for name in names}, {name: getattr(now, name) for name in names},
        next="leave the flag away, or choose another -o",
    )  # fmt: skip


def default_batch(config: StageConfig, device: torch.device, most: int | None = None) -> int:
    """Return a batch at which the device is busy and half of its memory is enough.

    most: how many there are to fill it, which are divided evenly. Without it, a power of two.
    """
    pixels = config.model.resolution**2
    batch = max(1, min(MOST[device.type], MOST_PIXELS[device.type] // pixels))
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // 2
        batch = min(batch, max(1, room // bytes_per_image(config.model)))
    if most is None:
        return 2 ** (batch.bit_length() - 1)
    return math.ceil(most / math.ceil(most / batch))


def bytes_per_image(model: ModelConfig) -> int:
    """Return about the memory of one image in a network evaluation, in float32.

    The way down is kept for the way up; the widest cell holds a handful of copies of itself.
    """
    kept = widest = model.base_channels * model.resolution**2
    side = model.resolution
    for plan in down_plan(model):
        side = side // 2 if plan.resize else side
        kept += plan.channels * side**2
    for plan in up_plan(model):
        widest = max(widest, plan.channels_in * side**2)
        side = side * 2 if plan.resize else side
    return FLOAT32 * (kept + 6 * widest)


def load_ready_stage(
    header: Header, sampling: Sampling, numerics: Numerics, session: Session
) -> Stage:
    """Load the stage onto the device. Raises what `load_diffusion_stage` does."""
    with part("weights"):
        stage = load_diffusion_stage(
            header.directory, Path(RUNS), sampling.weights, session.device,
            precision=numerics.precision,
        )  # fmt: skip
    tell_compiling(numerics, session.report)
    return for_sampling(stage, compiled=numerics.compiled)


@torch.no_grad()
def take_weights(stage: Stage, directory: Path, weights: str) -> str:
    """Give a stage other weights, checked, rounded as those it has; nothing is compiled anew.

    Returns their digest. Raises MissingError where they are gone, and what `read_weights` raises.
    """
    expected = empty_net(stage.config).state_dict()
    found = read_weights(weights_file(directory, weights), expected)
    for name, parameter in stage.net.named_parameters():
        parameter.copy_(found.tensors[name])
    return found.digest


def tell_compiling(numerics: Numerics, report: Report) -> None:
    """Report that the network is being compiled, which takes a while."""
    if numerics.compiled:
        report.say("compiling the network at its first use, which takes a minute or two")
