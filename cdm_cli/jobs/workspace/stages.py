"""Rows of `cdm ls` for stages and their checkpoints: headers alone are read, no tensor."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import (
    BEST,
    CHECKPOINTS,
    EMA,
    STEP_NAME,
    list_checkpoints,
    list_leftovers,
    read_manifest,
)
from cdm_cli.cascade.stagefile import STAGE_FILE, compute_stage_digest, read_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.lock import is_held
from cdm_cli.errors import CdmError
from cdm_cli.jobs.runtime import lock
from cdm_cli.jobs.workspace.look import (
    find_newest,
    is_directory,
    is_file,
    measure_size,
    read_last_rows,
)
from cdm_cli.jobs.workspace.rows import Row, describe_or_tell_why
from cdm_cli.jobs.workspace.scores import Score, Scores, is_number
from cdm_cli.names import METRICS_FILE
from cdm_cli.plans import StageFile

FID = "fid_"


@dataclass(frozen=True)
class Weights:
    """A file of weights of a stage. digest: of the stage with them, as what they made records it.

    name: ema, best or step-…, as --weights takes it. step: None where the file does not say.
    """

    name: str
    path: Path
    step: int | None
    sha256: str
    digest: str
    score: float | None


def find_stage_weights(directory: Path, file: StageFile) -> dict[str, Weights | CdmError]:
    """Return the files of weights of a stage by name: ema, best, then checkpoints, the newest last.

    One that cannot be read is the error that says why, in its place.
    """
    paths = {"ema": directory / EMA, "best": directory / BEST}
    found = {name: path for name, path in paths.items() if os.path.lexists(path)}
    if is_directory(directory / CHECKPOINTS):
        found |= {
            path.name: path / EMA for path in list_checkpoints(directory) if is_directory(path)
        }
    return {name: _read_weights(name, path, file) for name, path in found.items()}


def select_readable(found: Mapping[str, Weights | CdmError]) -> list[Weights]:
    """Return the files of weights that can be read, without the errors of the others."""
    return [weights for weights in found.values() if isinstance(weights, Weights)]


def _read_weights(name: str, path: Path, file: StageFile) -> Weights | CdmError:
    try:
        said = read_metadata(path)
    except CdmError as error:
        return error
    sha256, step = said.get("sha256", ""), said.get("step", "")
    return Weights(
        name, path, int(step) if step.isascii() and step.isdigit() and len(step) < 13 else None,
        sha256, compute_stage_digest(file.plan.stage, sha256), _read_fid(said),
    )  # fmt: skip


def _read_fid(metadata: Mapping[str, str]) -> float | None:
    """Return the FID by which `cdm train --select` chose weights."""
    try:
        score: Any = json.loads(metadata.get("score", ""))
        value: Any = score["value"] if score["metric"] == "fid" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(value) if is_number(value) else None


def is_training(directory: Path) -> bool:
    """Whether a job is training the stage of a directory now."""
    if not is_file(directory / lock.NAME):
        return False
    with open_regular_file(directory / lock.NAME) as file:
        return is_held(file.fileno())


def is_stage(directory: Path) -> bool:
    """Whether a path is a directory, not a link, that holds `stage.json`."""
    return is_directory(directory) and os.path.lexists(directory / STAGE_FILE)


def describe_stage(directory: Path, name: str, scores: Scores) -> Row:
    """Return the row of a stage; where the stage cannot be read, a row that says why."""

    size = measure_size(directory)
    return describe_or_tell_why(
        name, "stage", lambda: _describe(directory, name, size, scores), size=size
    )


def _describe(directory: Path, name: str, size: int, scores: Scores) -> Row:
    file = read_stage_file(directory)
    training, seen = is_training(directory), find_stage_weights(directory, file)
    if isinstance(ema := seen.get("ema"), CdmError):
        raise ema
    found = select_readable(seen)
    steps = [weights.step or 0 for weights in found if weights.name != "best"]
    rows = list(read_last_rows(directory / METRICS_FILE))
    if training:
        steps += [row["step"] for row in rows if type(row.get("step")) is int]
    done, of = max(steps, default=0), file.plan.training.steps
    imported = bool(found) and not done
    return Row(
        name=name,
        kind=file.plan.stage.kind,
        resolution=_describe_resolution(file),
        preset=file.plan.preset,
        done=None if imported else done,
        of=None if imported else of,
        state=_describe_state(training, done, of) if not imported else "imported",
        fid=_find_best(found, rows, scores),
        size=size,
        made_from=(file.data.name,) if file.data else (),
        when=find_newest(directory / STAGE_FILE, *(weights.path for weights in found)),
    )


def _describe_state(training: bool, done: int, of: int) -> str:
    return "training" if training else "finished" if done >= of else "stopped"


def _describe_resolution(file: StageFile) -> str:
    stage = file.plan.stage
    if isinstance(stage, ClassifierConfig):
        return str(stage.resolution)
    low = f"{stage.conditioning.resolution} -> " if stage.conditioning else ""
    return f"{low}{stage.model.resolution}"


def _find_best(found: list[Weights], rows: list[dict[str, object]], scores: Scores) -> float | None:
    """Return the best FID of any weights: of --select, of a curve, or logged in training."""
    known = [scores[weights.sha256] for weights in found if weights.sha256 in scores]
    known += [Score(False, weights.score) for weights in found if weights.score is not None]
    known += [
        Score(name != f"{FID}train", float(str(value)))
        for row in rows
        for name, value in row.items()
        if name.startswith(FID) and is_number(value)
    ]
    return min(known).fid if known else None


def describe_checkpoints(
    directory: Path,
    seen: Mapping[str, Weights | CdmError],
    of: int,
    scores: Scores,
    kept_for: Mapping[str, tuple[str, ...]],
) -> Iterator[Row]:
    """Yield a row for each file of weights and each checkpoint, oldest first.

    seen: what `find_stage_weights` gives; of: the steps of the training; kept_for: what needs them.
    """
    for name, weights in seen.items():
        whole = STEP_NAME.fullmatch(name) is not None
        kind = "checkpoint" if whole else "weights"
        path = directory / CHECKPOINTS / name if whole else directory / f"{name}.safetensors"
        look = partial(_describe_weights, name, kind, path, weights, of, scores)
        row = describe_or_tell_why(name, kind, look)
        yield replace(row, note=row.note or ", ".join(kept_for.get(name, ())))
    for path in list_leftovers(directory):
        yield Row(name=path.name, kind="checkpoint", state="unfinished", size=measure_size(path))


def _describe_weights(
    name: str, kind: str, path: Path, weights: Weights | CdmError, of: int, scores: Scores
) -> Row:
    if isinstance(weights, CdmError):
        raise weights
    whole = kind == "checkpoint"
    if whole:
        read_manifest(path)
    known = [scores[weights.sha256].fid] if weights.sha256 in scores else []
    known += [] if weights.score is None else [weights.score]
    return Row(
        name=name, kind=kind, done=weights.step, of=of, state="whole",
        fid=min(known, default=None), size=measure_size(path) if whole else path.lstat().st_size,
        when=find_newest(weights.path),
    )  # fmt: skip
