"""`cdm import`: weights that others trained become a stage of ours.

The flags of the models that openai published are known by the name of their file; for any other
checkpoint the user gives the flags it was trained with. A setting that no tensor shows and no flag
says is the default of its package, and the report says so.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.checkpoint import find_weights_file
from cdm_cli.cascade.files import read_bytes
from cdm_cli.cascade.foreign.foreign import read_file, read_tensors, remove_prefix
from cdm_cli.cascade.foreign.openai import stage_config
from cdm_cli.cascade.foreign.openai_flags import PUBLISHED, Flags, find_package, parse_flags
from cdm_cli.cascade.foreign.openai_names import convert
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.cascade.weights import read_weights
from cdm_cli.config import StageConfig
from cdm_cli.data import disk, durable, renaming
from cdm_cli.data.hdf5_foreign import is_hdf5
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, CdmError, MismatchError
from cdm_cli.jobs.runtime.identity import other_job_error
from cdm_cli.names import Origin
from cdm_cli.options.files import ImportOptions
from cdm_cli.plans import DataInfo, Plan, StageFile, TrainingConfig
from cdm_cli.report import Report
from cdm_cli.units import format_count

PRESET = "imported"
NAMES_LIMIT = 16 * 2**20


@dataclass(frozen=True)
class Imported:
    """The stage that an import made, or found. sha256: of the file of the checkpoint."""

    stage: Path
    kind: str
    resolution: int
    low_resolution: int | None
    num_classes: int
    parameters: int
    sha256: str


def run(options: ImportOptions, report: Report) -> Imported:
    """Convert a checkpoint into a stage directory that `sample` and `upsample` use.

    Where the same import is at options.out already, nothing is written. Raises WouldOverwriteError
    for anything else there, BadInputError and UnsafeInputError for the checkpoint, UsageError for
    flags that do not describe it, MismatchError for --classes of another number.
    """
    source, out = options.src, options.out
    there = is_import(out)
    flags, origin = _choose_flags(options, report)
    data = read_file(source)
    found = read_tensors(data, source, from_pickle=options.from_pickle)
    tensors, prefix = remove_prefix(found)
    if prefix:
        report.say(f"{source.name}: every name begins with {prefix}, which is left away")
    config = stage_config(tensors, flags, origin, str(source))
    for line in _tell_assumed(flags, config):
        report.say(f"{source.name}: {line}")
    weights = convert(tensors, config, str(source))
    sha256 = hashlib.sha256(data).hexdigest()
    text = f"{origin or 'openai'} checkpoint {source.name}, SHA-256 {sha256}"
    stage = _describe_stage(options, config, text)
    if there or not write_stage(out, stage, weights):
        check_same_stage(out, stage, weights)
        report.say(f"{out} is there already")
    return Imported(
        stage=out,
        kind=config.kind,
        resolution=config.model.resolution,
        low_resolution=config.conditioning.resolution if config.conditioning else None,
        num_classes=config.model.num_classes,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        sha256=sha256,
    )


def _describe_stage(options: ImportOptions, config: StageConfig, source: str) -> StageFile:
    """Return what the stage file says of a stage whose training is not known."""
    classes = _read_classes(options.classes, config.model.num_classes)
    return StageFile(
        cdm_version=__version__,
        plan=Plan(preset=PRESET, source=source, stage=config, training=TrainingConfig()),
        data=DataInfo(name=options.src.name, digest="", classes=classes, num_train=0, num_val=0),
    )


def is_import(out: Path) -> bool:
    """Return whether an imported stage is at `out`; WouldOverwriteError if anything else is."""
    if not os.path.lexists(out):
        return False
    with suppress(CdmError):
        if read_stage_file(out).plan.preset == PRESET:
            return True
    raise other_job_error(out, f"{out} exists")


def check_same_stage(out: Path, stage: StageFile, weights: Mapping[str, Tensor]) -> None:
    """Raise WouldOverwriteError unless a stage directory holds what this import would write."""
    there = read_stage_file(out)
    if (there.plan, there.data) == (stage.plan, stage.data):
        found = read_weights(find_weights_file(out), weights).tensors
        if all(torch.equal(found[name], tensor) for name, tensor in weights.items()):
            return
    raise other_job_error(out, f"{out} exists, and is not this import")


def write_stage(out: Path, stage: StageFile, weights: Mapping[str, Tensor]) -> bool:
    """Make a stage directory, which appears whole or not at all.

    Return False where another process was faster.
    """
    disk.make_directory(out.parent)
    with durable.make_partial(out, directory=True) as (_, partial):
        save_ema(partial, weights, step=0)
        write_stage_file(partial, stage)
        try:
            renaming.rename_new(partial, out)
        except renaming.ExistsError:
            disk.remove_tree(partial)
            return False
    return True


def _choose_flags(options: ImportOptions, report: Report) -> tuple[Flags, Origin | None]:
    """Return the flags given, or those published for a file of this name."""
    name = options.src.name
    if options.flags or name not in PUBLISHED:
        flags, said = parse_flags(options.flags)
        return flags, find_package(said, options.origin)
    origin, text = PUBLISHED[name]
    report.say(f"{name}: taken for the model that {origin} published: {text}")
    return parse_flags([text])[0], options.origin or origin


def _tell_assumed(flags: Flags, config: StageConfig) -> list[str]:
    """Return lines on the settings that were assumed, since no flag and no tensor tells them."""
    values = {
        "num_heads": config.model.num_heads if config.model.head_channels is None else None,
        "diffusion_steps": config.schedule.T,
        "noise_schedule": config.schedule.kind,
        "rescale_timesteps": config.rescale_time if config.schedule.T != 1000 else None,
    }
    silent = [
        f"{k} = {v}" for k, v in values.items() if v is not None and getattr(flags, k) is None
    ]
    return [f"by default of its package, {', '.join(silent)}"] if silent else []


def _read_classes(path: Path | None, num: int) -> tuple[str, ...]:
    """Return the class names: given ones, else "0", "1", …; one for an unconditional model."""
    if path is None or num == 0:
        return tuple(str(k) for k in range(num)) or ("all",)
    names = read_names(path)
    if len(names) != num:
        raise MismatchError(
            f"--classes {path} has {format_count(len(names), 'name')}, the checkpoint has "
            f"{format_count(num, 'class')}",
            kept="nothing was written",
            next="one name per line, in the order of training",
        )
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a store or a stage, or of a text file with one name a line."""
    if path.is_dir():
        data = read_stage_file(path).data
        return data.classes if data else ()
    if is_hdf5(path):
        with open_store(path) as store:
            return tuple(store.classes)
    try:
        lines = read_bytes(path, NAMES_LIMIT).decode().splitlines()
    except UnicodeDecodeError:
        raise BadInputError(f"--classes {path} is neither a store nor UTF-8 text") from None
    return tuple(line.strip() for line in lines if line.strip())
