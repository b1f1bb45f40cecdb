"""`cdm inspect`: what a file holds and where it came from, told from headers.

No image and no weight is read.
"""

from pathlib import Path
from typing import Any

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import MANIFEST, list_checkpoints, read_manifest
from cdm_cli.cascade.stagefile import STAGE_FILE, read_stage_file, resolve_path
from cdm_cli.config import StageConfig
from cdm_cli.data.hdf5_foreign import is_hdf5
from cdm_cli.data.pruned import missing_error
from cdm_cli.data.store import Part, open_store
from cdm_cli.errors import BadInputError
from cdm_cli.jobs.checking.screen import (
    InspectResult,
    list_checkpoint_lines,
    list_stage_lines,
    list_store_lines,
    list_weights_lines,
)
from cdm_cli.jobs.training.cost import assume_classes
from cdm_cli.names import RUNS
from cdm_cli.nets.counting import count_flops_per_image, count_parameters
from cdm_cli.options.workspace import InspectOptions
from cdm_cli.report import Report


def run(options: InspectOptions, report: Report) -> InspectResult:
    """Return the contents of a store, a stage (by path or name), a checkpoint or weights.

    Raises MissingError, BadInputError for a file of another kind or a damaged one, and what
    `open_store` raises.
    """
    path = resolve_path(options.path, Path(RUNS))
    if not path.exists():
        raise missing_error(path)
    if (path / STAGE_FILE).is_file():
        return InspectResult(_inspect_stage(path), list_stage_lines)
    if (path / MANIFEST).is_file():
        return InspectResult(_inspect_checkpoint(path), list_checkpoint_lines)
    if path.suffix == ".safetensors" and path.is_file():
        return InspectResult(_inspect_weights(path), list_weights_lines)
    if path.is_file() and is_hdf5(path):
        return InspectResult(_inspect_store(path), list_store_lines)
    raise BadInputError(
        f"{path} is neither a store, a stage directory, a checkpoint nor .safetensors",
        next="cdm ls says what is here; cdm report shows a sweep, a curve or a score",
    )


def _inspect_store(path: Path) -> dict[str, Any]:
    with open_store(path) as store:
        return {
            "path": path,
            "kind": store.kind,
            "bytes": path.stat().st_size,
            "finished": store.finished,
            "digest": store.digest,
            "num_classes": len(store.classes),
            "classes": list(store.classes),
            "parts": [_inspect_part(name, part) for name, part in store.parts.items()],
            "provenance": store.provenance,
        }


def _inspect_part(name: str, part: Part) -> dict[str, Any]:
    return {
        "part": name or "all",
        "num": part.num,
        "images": [f"{res}x{res}x{part.count_channels(res)}" for res in part.resolutions],
        "z_s": list(part.z_times),
        "blocks_done": part.num_blocks - len(part.list_missing()),
        "blocks": part.num_blocks,
    }


def _inspect_stage(path: Path) -> dict[str, Any]:
    file = read_stage_file(path)
    stage = file.plan.stage
    net = build_empty_net(assume_classes(stage))
    saved = [step.name for step in list_checkpoints(path)]
    weights = {found.name: read_metadata(found) for found in sorted(path.glob("*.safetensors"))}
    return {
        "path": path,
        "kind": stage.kind,
        **(_list_diffusion(stage) if isinstance(stage, StageConfig) else _list_classifier(stage)),
        "parameters": count_parameters(net),
        "flops_per_image": count_flops_per_image(net),
        "preset": file.plan.preset,
        "checkpoints": saved,
        "weights": weights,
        "cdm_version": file.cdm_version,
        "data": file.data,
        "plan": file.plan,
    }


def _list_diffusion(stage: StageConfig) -> dict[str, Any]:
    model, conditioning = stage.model, stage.conditioning
    return {
        "resolution": model.resolution,
        **({"low_resolution": conditioning.resolution} if conditioning else {}),
        "channels": model.channels,
        "num_classes": model.num_classes,
        "T": stage.schedule.T,
    }


def _list_classifier(stage: Any) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in ("resolution", "channels", "num_classes")}


def _inspect_checkpoint(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    files = [
        {"file": name, "bytes": entry.size, "sha256": entry.sha256}
        for name, entry in manifest.files.items()
    ]
    return {"path": path, "kind": "checkpoint", "step": manifest.step, "files": files}


def _inspect_weights(path: Path) -> dict[str, Any]:
    return {"path": path, "kind": "weights", "bytes": path.stat().st_size, **read_metadata(path)}
