"""`stage.json`, and where a stage is looked for."""

import hashlib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cdm_cli.cascade.files import read_bytes
from cdm_cli.config import AnyStageConfig
from cdm_cli.data import durable
from cdm_cli.errors import BadInputError, CdmError, MismatchError, MissingError, propose, quote
from cdm_cli.names import RUNS
from cdm_cli.options.training import is_plain
from cdm_cli.plans import StageFile
from cdm_cli.sentences import find_fault_in, find_near, suggest_near
from cdm_cli.settings import Settings

STAGE_FILE = "stage.json"
STAGE_LIMIT = 4 * 2**20  # JSON in memory is up to thirty times as large
KINDS = {  # of stages, as errors call them, and as `stage.json` does
    "base stage": ("base",), "super-resolution stage": ("sr",), "classifier": ("classifier",),
    "diffusion stage": ("base", "sr"),
}  # fmt: skip
TRAIN = {
    "base": "cdm train base --preset …", "sr": "cdm train sr --preset …",
    "classifier": "cdm train features --preset classifier, then --features features",
}  # fmt: skip
M = TypeVar("M", bound=Settings)


def write_stage_file(directory: Path, stage: StageFile) -> None:
    """Write `stage.json`, atomically. Raises MismatchError for one too long to be read again."""
    data = (stage.model_dump_json(indent=2) + "\n").encode()
    if len(data) > STAGE_LIMIT:
        raise MismatchError(
            f"{directory / STAGE_FILE} would have {len(data)} bytes, {STAGE_LIMIT} are the most",
            kept="nothing was written",
            next="fewer or shorter class names in the data",
        )
    durable.write_file_atomically(directory / STAGE_FILE, data)


def read_stage_file(directory: Path) -> StageFile:
    """Read `stage.json`; raise MissingError, or BadInputError naming the first wrong field."""
    path = directory / STAGE_FILE
    return read_settings(StageFile, path, STAGE_LIMIT)


def read_settings(model: type[M], path: Path, limit: int, *, next: str = "restore the file") -> M:
    """Read one JSON file of at most limit bytes as a Settings model.

    Raises BadInputError, whose advice is `next`, for another one, and what `read_bytes` raises.
    """
    try:
        return model.model_validate_json(read_bytes(path, limit))
    except ValidationError as error:
        fault = find_fault_in(error)
        where = f"{path}: {fault.where}:" if fault.where else f"{path}:"
        raise BadInputError(
            f"{where} {fault.sentence}",
            kept="nothing was taken from it",
            next=next,
        ) from None


def write_settings(path: Path, settings: Settings) -> None:
    """Write a Settings model as one JSON file, whole or not at all. Raises DiskError."""
    data = settings.model_dump_json(indent=1) + "\n"
    durable.write_file_atomically(path, data.encode())


def compute_stage_digest(config: AnyStageConfig, weights_digest: str) -> str:
    """Return the SHA-256 that identifies a stage: of its configuration and its weights' digest."""
    return hashlib.sha256((config.model_dump_json() + weights_digest).encode()).hexdigest()


def find_stage(name_or_path: str | Path, runs: Path) -> Path:
    """Return the stage directory of a name in `runs`, or of a path.

    Raises MissingError naming the stages that there are.
    """
    for directory in (runs / name_or_path, Path(name_or_path)):
        if (directory / STAGE_FILE).is_file():
            return directory
    names = list_stages(runs)
    there = f"{runs}/ has {', '.join(names)}" if names else f"{runs}/ has no stage"
    anew = Path(name_or_path).name
    anew = anew if is_plain(anew) else "NAME"
    raise MissingError(
        suggest_near(
            f"stage {name_or_path}: neither {runs / name_or_path}/{STAGE_FILE} nor "
            f"{Path(name_or_path)}/{STAGE_FILE} exists; {there}",
            str(name_or_path),
            names,
        ),
        next=f"name one of them, or cdm train {quote(anew)} --preset P"
        if names
        else f"cdm train {quote(anew)} --preset P",
    )


def resolve_path(path: Path, runs: Path) -> Path:
    """Return the stage in `runs` of that name where nothing is at a path, else the path."""
    if not path.exists() and (runs / path / STAGE_FILE).is_file():
        return runs / path
    return path


def list_stages(runs: Path) -> list[str]:
    """Return the names of all stages in a directory, sorted."""
    if not runs.is_dir():
        return []
    names = (path.name for path in runs.iterdir() if (path / STAGE_FILE).is_file())
    return sorted(name for name in names if not durable.is_unfinished(name))


def other_kind_error(directory: Path, kind: str, expected: str) -> MismatchError:
    """Return the error of a stage of one kind where one of another is expected, both of KINDS."""
    return MismatchError(
        f"{directory} is a {kind}, expected a {expected}", next=advise_stage(expected, directory)
    )


def advise_stage(expected: str, directory: Path, flag: str = "name") -> str:
    """Return which stage of a kind to take for one that is none: the nearest name, or the only one.

    It is looked for beside the one that was named, then in runs/; where there is none, the command
    that trains one is returned. expected: of KINDS. flag: what names it.
    """
    kinds = KINDS[expected]
    for home in (directory.parent, Path(RUNS)):
        names = [name for name in list_stages(home) if _find_kind(home / name) in kinds]
        if names:
            first = find_near(directory.name, names)
            told = sorted(names, key=lambda name: name not in first)
            places = told if home == Path(RUNS) else [home / name for name in told]
            return propose(flag, places, f"{expected} in {quote(home)}/")
    return TRAIN[kinds[0]]


def _find_kind(directory: Path) -> str:
    """Return the kind of a stage as its file has it, "" where that cannot be read."""
    try:
        return read_stage_file(directory).plan.stage.kind
    except CdmError:
        return ""
