"""Stage directories and checkpoints: weights, configuration and provenance on disk.

    runs/NAME/
    ├── stage.json                  plans.StageFile
    ├── ema.safetensors             the weights that `sample` and `upsample` take
    ├── best.safetensors            the weights of the best score, which its metadata tell
    └── checkpoints/step-00001000/  model, ema and optimizer (.safetensors), state.json,
                                    and manifest.json with the SHA-256 of each

A checkpoint is written under another name, its manifest last, and renamed: a directory of
the right name is complete, whenever the writer was killed. No file here can hold code.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial as bound
from pathlib import Path
from typing import Any

from torch import Tensor

from cdm_cli.cascade.files import read_bytes
from cdm_cli.cascade.saved import (
    BEST,
    CHECKPOINTS,
    EMA,
    MANIFEST,
    PARTS,
    SMALL_LIMIT,
    STATE,
    FileEntry,
    Manifest,
    list_checkpoints,
    name_checkpoint,
    read_manifest,
    remove_checkpoint,
    remove_leftovers,
)
from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.cascade.weights import FileHead, iterate_bytes, make_head, measure_head, read_weights
from cdm_cli.data import disk, durable, renaming
from cdm_cli.errors import BadInputError, CdmError
from cdm_cli.signals import begin_unless_left, undo_if_left


@dataclass(frozen=True)
class Snapshot:
    """What a training run needs to continue, besides `stage.json`.

    optimizer: flat, "exp_avg.NAME" and so on. state: small JSON values.
    """

    step: int
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors, by the part of a checkpoint that holds them."""
        return {part: getattr(self, part) for part in PARTS}


def save_ema(directory: Path, ema: Mapping[str, Tensor], step: int) -> None:
    """Replace `ema.safetensors`, atomically."""
    _save(directory / EMA, ema, {"step": str(step)})


def save_best(directory: Path, ema: Mapping[str, Tensor], step: int, score: str) -> None:
    """Replace `best.safetensors`, atomically; score says what made it best."""
    _save(directory / BEST, ema, {"step": str(step), "score": score})


def take_ema(directory: Path, checkpoint: Path) -> None:
    """Make `ema.safetensors` a hard link to that file of a checkpoint."""
    durable.link_file_atomically(checkpoint / EMA, directory / EMA)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    with ThreadPoolExecutor(1) as pool:
        _write(path, tensors, metadata, pool.submit(make_head, tensors, metadata))


def _write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], head: "Future[FileHead]"
) -> FileEntry:
    """Write a file of tensors while its head, which holds their digest, is being computed."""
    with durable.make_partial(path) as (fd, temporary):
        offset = measure_head(tensors, metadata)
        for piece in iterate_bytes(tensors):
            disk.pwrite_all(fd, temporary, piece, offset)
            disk.begin_sync(fd, offset, len(piece))
            offset += len(piece)
        found = head.result()
        disk.pwrite_all(fd, temporary, found.data, 0)
        disk.sync(fd, temporary)
        renaming.rename(temporary, path)
    return FileEntry(size=found.size, sha256=found.sha256)


def save_checkpoint(
    directory: Path, snapshot: Snapshot, *, keep: int, stopped: bool = False
) -> Path:
    """Write a checkpoint of the stage directory, then remove what `remove_older` removes."""
    home = directory / CHECKPOINTS
    final = home / name_checkpoint(snapshot.step)
    partial = home / f".{final.name}{durable.PARTIAL}"
    disk.make_directory(home)
    remove_leftovers(directory)
    try:
        with undo_if_left(bound(durable.discard, partial)):
            _fill(partial, snapshot, stopped)
            remove_checkpoint(final)
            renaming.rename(partial, final)
    except CdmError:
        durable.discard(partial)
        raise
    remove_older(directory, snapshot.step, keep)
    return final


def _fill(partial: Path, snapshot: Snapshot, stopped: bool) -> None:
    """Write the files of a checkpoint, the manifest last; all are hashed meanwhile."""
    with begin_unless_left():
        disk.make_directory(partial)
    entries: dict[str, FileEntry] = {}
    metadata = {"step": str(snapshot.step)}
    with ThreadPoolExecutor(len(PARTS)) as pool:
        largest_first = sorted(PARTS, key=lambda part: part != "optimizer")
        tensors = snapshot.parts
        heads = {part: pool.submit(make_head, tensors[part], metadata) for part in largest_first}
        for part, name in PARTS.items():
            entries[name] = _write(partial / name, tensors[part], metadata, heads[part])
    entries[STATE] = _write_bytes(partial / STATE, json.dumps(dict(snapshot.state)).encode())
    manifest = Manifest(step=snapshot.step, files=entries, stopped=stopped)
    text = manifest.model_dump_json(indent=2, exclude_defaults=True)
    durable.write_file_atomically(partial / MANIFEST, text.encode())


def remove_older(directory: Path, step: int, keep: int) -> None:
    """Remove all checkpoints up to `step` but the one of `step` and the newest `keep` regular ones.

    step: of the last checkpoint known to be good. A checkpoint that was saved because a run was
    stopped is removed with the next one and is not counted. Checkpoints later than `step`, left
    by a run whose last one was damaged, are neither removed nor counted.
    """
    found = [path for path in list_checkpoints(directory) if path.name <= name_checkpoint(step)]
    regular = [path for path in found if not _was_stopped(path)]
    for old in sorted({*found[:-1]} - {*regular[-keep:]}):
        remove_checkpoint(old)


def _was_stopped(checkpoint: Path) -> bool:
    """Say whether a checkpoint was saved where a run was stopped; a damaged one was not."""
    try:
        return read_settings(Manifest, checkpoint / MANIFEST, SMALL_LIMIT).stopped
    except CdmError:
        return False


def _write_bytes(path: Path, data: bytes) -> FileEntry:
    durable.write_file_atomically(path, data)
    return FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def load_checkpoint(checkpoint: Path, expected: Snapshot) -> Snapshot:
    """Read a checkpoint whose tensors are exactly those expected (which may be meta tensors).

    Raises BadInputError for a damaged one, MismatchError for one of another model.
    """
    manifest = read_manifest(checkpoint)
    with ThreadPoolExecutor(len(PARTS)) as pool:
        reads = {
            part: pool.submit(
                read_weights, checkpoint / name, expected.parts[part],
                sha256=manifest.files[name].sha256,
            )
            for part, name in PARTS.items()
        }  # fmt: skip
        parts = {part: read.result().tensors for part, read in reads.items()}
    text = read_bytes(checkpoint / STATE, SMALL_LIMIT)
    if hashlib.sha256(text).hexdigest() != manifest.files[STATE].sha256:
        raise BadInputError(f"{checkpoint / STATE} is damaged", next="take an earlier checkpoint")
    return Snapshot(step=manifest.step, state=json.loads(text), **parts)
