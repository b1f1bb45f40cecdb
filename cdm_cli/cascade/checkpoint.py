"""Stage directories and checkpoints: weights, configuration and provenance on disk.

    runs/NAME/
    ├── stage.json                  config.StageFile
    ├── ema.safetensors             the weights that `sample` and `upsample` take
    ├── best.safetensors            the weights of the best score, which its metadata tell
    └── checkpoints/step-00001000/  model, ema and optimizer (.safetensors), state.json,
                                    and manifest.json with the SHA-256 of each

A checkpoint is written under another name, its manifest last, and renamed: a directory of
the right name is complete, whenever the writer was killed. No file here can hold code.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cdm_cli.cascade.files import read_bytes
from cdm_cli.cascade.stage import ClassifierStage, Stage, build_net
from cdm_cli.cascade.stagefile import (
    STAGE_FILE,
    find_stage,
    list_stages,
    read_settings,
    read_stage_file,
    write_stage_file,
)
from cdm_cli.cascade.weights import pack, read_weights
from cdm_cli.config import AnyStageConfig, ClassifierConfig, Settings
from cdm_cli.data import durable
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.names import Precision
from cdm_cli.nets.classifier import Classifier

__all__ = [
    "STAGE_FILE", "FileEntry", "Manifest", "Snapshot", "checkpoints", "empty_net", "find_stage",
    "latest_checkpoint", "list_stages", "load_checkpoint", "load_diffusion_stage", "load_stage",
    "read_manifest", "read_stage_file", "save_best", "save_checkpoint", "save_ema", "step_name",
    "weights_file", "write_stage_file",
]  # fmt: skip

MANIFEST, STATE = "manifest.json", "state.json"
EMA, BEST, CHECKPOINTS = "ema.safetensors", "best.safetensors", "checkpoints"
PARTS = {"model": "model.safetensors", "ema": EMA, "optimizer": "optimizer.safetensors"}
SMALL_LIMIT = 2**20
STEP_NAME = re.compile(r"step-(\d{8,12})")


class FileEntry(Settings):
    """Size and SHA-256 of one file of a checkpoint."""

    size: int
    sha256: str


class Manifest(Settings):
    """The contents of `manifest.json`."""

    step: int
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Snapshot:
    """All that continues a training run, besides `stage.json`.

    optimizer: flat, "exp_avg.NAME" and so on. state: small JSON values.
    """

    step: int
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])


def step_name(step: int) -> str:
    """Return the directory name of a checkpoint."""
    return f"step-{step:08d}"


def save_ema(directory: Path, ema: Mapping[str, Tensor], step: int) -> None:
    """Replace `ema.safetensors`, atomically."""
    durable.write_file_atomically(directory / EMA, pack(ema, {"step": str(step)}))


def save_best(directory: Path, ema: Mapping[str, Tensor], step: int, score: str) -> None:
    """Replace `best.safetensors`, atomically; score says what made it best."""
    data = pack(ema, {"step": str(step), "score": score})
    durable.write_file_atomically(directory / BEST, data)


def save_checkpoint(directory: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a checkpoint of the stage directory, then remove all but the newest `keep`."""
    home = directory / CHECKPOINTS
    final = home / step_name(snapshot.step)
    partial = home / f".{final.name}.partial"
    durable.remove_tree(partial)
    durable.make_directory(partial)
    entries: dict[str, FileEntry] = {}
    for part, name in PARTS.items():
        data = pack(getattr(snapshot, part), {"step": str(snapshot.step)})
        entries[name] = _written(partial / name, data)
    entries[STATE] = _written(partial / STATE, json.dumps(dict(snapshot.state)).encode())
    manifest = Manifest(step=snapshot.step, files=entries)
    durable.write_file_atomically(partial / MANIFEST, manifest.model_dump_json(indent=2).encode())
    remove_checkpoint(final)
    durable.rename(partial, final)
    for old in checkpoints(directory)[:-keep]:
        remove_checkpoint(old)
    return final


def _written(path: Path, data: bytes) -> FileEntry:
    durable.write_file_atomically(path, data)
    return FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, its manifest first: half removed, it no longer counts."""
    durable.remove_tree(path, first=MANIFEST)


def checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints of a stage directory, oldest first."""
    home = directory / CHECKPOINTS
    if not home.is_dir():
        return []
    found = (path for path in home.iterdir() if STEP_NAME.fullmatch(path.name))
    return sorted(path for path in found if (path / MANIFEST).is_file())


def latest_checkpoint(directory: Path) -> Path | None:
    """Return the newest complete checkpoint, if there is one."""
    found = checkpoints(directory)
    return found[-1] if found else None


def read_manifest(checkpoint: Path) -> Manifest:
    """Read the manifest of a checkpoint and compare the sizes of its files."""
    path = checkpoint / MANIFEST
    manifest = read_settings(Manifest, path, SMALL_LIMIT)
    for name in (*PARTS.values(), STATE):
        if name not in manifest.files:
            raise BadInputError(f"{path} does not list {name}", next="take an earlier checkpoint")
        if not (checkpoint / name).is_file():
            raise MissingError(f"{checkpoint / name} does not exist", next="restore the file")
        size = (checkpoint / name).stat().st_size
        if size != manifest.files[name].size:
            raise BadInputError(
                f"{checkpoint / name} has {size} bytes, its manifest says "
                f"{manifest.files[name].size}",
                next="take an earlier checkpoint",
            )
    return manifest


def load_checkpoint(checkpoint: Path, expected: Snapshot) -> Snapshot:
    """Read a checkpoint whose tensors are exactly those expected (which may be meta tensors).

    Raises BadInputError for a damaged one, MismatchError for one of another model.
    """
    manifest = read_manifest(checkpoint)
    parts = {
        part: read_weights(
            checkpoint / name, getattr(expected, part), sha256=manifest.files[name].sha256
        ).tensors
        for part, name in PARTS.items()
    }
    text = read_bytes(checkpoint / STATE, SMALL_LIMIT)
    if hashlib.sha256(text).hexdigest() != manifest.files[STATE].sha256:
        raise BadInputError(f"{checkpoint / STATE} is damaged", next="take an earlier checkpoint")
    return Snapshot(step=manifest.step, state=json.loads(text), **parts)


def empty_net(config: AnyStageConfig) -> nn.Module:
    """Build the network of a stage without memory for its weights (on the meta device)."""
    with torch.device("meta"):
        return Classifier(config) if isinstance(config, ClassifierConfig) else build_net(config)


def weights_file(directory: Path, weights: str = "ema") -> Path:
    """Return the file of "ema", "best" or "step-…" weights of a stage directory.

    Raises UsageError for another word and MissingError where that file is not there.
    """
    if weights in ("ema", "best"):
        path = directory / (EMA if weights == "ema" else BEST)
    elif STEP_NAME.fullmatch(weights):
        path = directory / CHECKPOINTS / weights / EMA
    else:
        raise UsageError(f"weights {weights}: expected ema, best or a checkpoint, step-00001000")
    if not path.is_file():
        steps = ", ".join(found.name for found in checkpoints(directory)) or "no checkpoint"
        raise MissingError(
            f"{path} does not exist; {directory} has {steps}", next="cdm train, or --weights step-…"
        )
    return path


def load_stage(
    name_or_path: str | Path,
    runs: Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    *,
    precision: Precision = "auto",
) -> Stage | ClassifierStage:
    """Load a stage for use: weights checked, on the device, in evaluation mode.

    weights: "ema", "best" or the name of a checkpoint, "step-00001000". Memory is set aside
    only once the header of the weights fits `stage.json` and the file has their size. Raises
    MissingError, BadInputError, UnsafeInputError and MismatchError.
    """
    directory = find_stage(name_or_path, runs)
    file = read_stage_file(directory)
    config, net = file.plan.stage, empty_net(file.plan.stage)
    loaded = read_weights(weights_file(directory, weights), net.state_dict())
    net.load_state_dict(loaded.tensors, assign=True)
    net.requires_grad_(False).eval()
    name = directory.resolve().name
    digest = hashlib.sha256((config.model_dump_json() + loaded.digest).encode()).hexdigest()
    classes = file.data.classes if file.data else ()
    if isinstance(config, ClassifierConfig):
        assert isinstance(net, Classifier)
        return ClassifierStage(config, classes, net, name=name, digest=digest).to(device)
    stage = Stage(config, classes, net, name=name, digest=digest, precision=precision)
    return stage.to(device)


def load_diffusion_stage(
    name_or_path: str | Path,
    runs: Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    *,
    precision: Precision = "auto",
) -> Stage:
    """Load a base or super-resolution stage; raise MismatchError for a classifier."""
    directory = find_stage(name_or_path, runs)
    if isinstance(read_stage_file(directory).plan.stage, ClassifierConfig):
        raise MismatchError(
            f"{directory} is a classifier, expected a diffusion stage", next="name another stage"
        )
    stage = load_stage(directory, runs, weights, device, precision=precision)
    assert isinstance(stage, Stage)
    return stage
