"""Which checkpoints a stage directory holds, told from names and manifests; without torch."""

import hashlib
import re
from pathlib import Path

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.data import disk, durable
from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.settings import Settings

MANIFEST, STATE = "manifest.json", "state.json"
EMA, BEST, CHECKPOINTS = "ema.safetensors", "best.safetensors", "checkpoints"
PARTS = {"model": "model.safetensors", "ema": EMA, "optimizer": "optimizer.safetensors"}
SMALL_LIMIT, PIECE = 2**20, 2**22
STEP_NAME = re.compile(r"step-(\d{8,12})")
LEFTOVER = re.compile(rf"{STEP_NAME.pattern}|\.{STEP_NAME.pattern}{re.escape(durable.PARTIAL)}")


class FileEntry(Settings):
    """Size and SHA-256 of one file of a checkpoint."""

    size: int
    sha256: str


class Manifest(Settings):
    """The contents of `manifest.json`. stopped: saved where a run was stopped, between two others.

    A run that is not stopped has no such checkpoint, and does not write the field.
    """

    step: int
    files: dict[str, FileEntry]
    stopped: bool = False


def name_checkpoint(step: int) -> str:
    """Return the directory name of a checkpoint."""
    return f"step-{step:08d}"


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, its manifest first: half removed, it no longer counts."""
    disk.remove_tree(path, first=MANIFEST)


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints of a stage directory, oldest first."""
    home = directory / CHECKPOINTS
    if not home.is_dir():
        return []
    found = (path for path in home.iterdir() if STEP_NAME.fullmatch(path.name))
    return sorted(path for path in found if is_complete(path))


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is there: its manifest is written last, and removed first.

    A checkpoint that a running training has removed since it was listed is not damaged.
    """
    return (checkpoint / MANIFEST).is_file()


def find_latest_checkpoint(directory: Path) -> Path | None:
    """Return the newest complete checkpoint, if there is one."""
    found = list_checkpoints(directory)
    return found[-1] if found else None


def read_manifest(checkpoint: Path) -> Manifest:
    """Read the manifest of a checkpoint and compare the sizes of its files.

    Raises MissingError for a missing file, BadInputError for one of another size.
    """
    path = checkpoint / MANIFEST
    manifest = read_settings(Manifest, path, SMALL_LIMIT)
    if checkpoint.name != name_checkpoint(manifest.step):
        raise BadInputError(
            f"{path} is of step {manifest.step}, its directory says otherwise",
            next="take an earlier checkpoint",
        )
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


def list_leftovers(directory: Path) -> list[Path]:
    """Return checkpoints that a killed process left half written or half removed, by name."""
    home = directory / CHECKPOINTS
    found = set(home.iterdir()) - set(list_checkpoints(directory)) if home.is_dir() else ()
    return sorted(path for path in found if LEFTOVER.fullmatch(path.name))


def remove_leftovers(directory: Path) -> None:
    """Remove what `list_leftovers` finds."""
    for path in list_leftovers(directory):
        disk.remove_tree(path)


def check_whole(checkpoint: Path) -> None:
    """Compare every file of a checkpoint with its manifest. Raises BadInputError, MissingError."""
    for name, entry in read_manifest(checkpoint).files.items():
        check_file(checkpoint / name, entry.sha256)


def check_file(path: Path, sha256: str) -> None:
    """Compare a file with its SHA-256. Raises BadInputError, MissingError."""
    hashed, piece = hashlib.sha256(), bytearray(PIECE)
    with open_regular_file(path) as file:
        while count := file.readinto(piece):
            hashed.update(memoryview(piece)[:count])
    if hashed.hexdigest() != sha256:
        raise BadInputError(f"{path} is damaged: its SHA-256 is not that of the manifest")
