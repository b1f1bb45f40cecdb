"""The files of a stage directory, each compared with the SHA-256 that was written with it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.cascade.checkpoint import empty_net
from cdm_cli.cascade.files import open_regular
from cdm_cli.cascade.snapshot import (
    BEST,
    CHECKPOINTS,
    EMA,
    MANIFEST,
    STEP_NAME,
    checkpoints,
    read_manifest,
)
from cdm_cli.cascade.stagefile import STAGE_FILE, read_stage_file
from cdm_cli.cascade.weights import read_weights
from cdm_cli.config import AnyStageConfig
from cdm_cli.errors import BadInputError, CdmError, MissingError
from cdm_cli.jobs.training_cost import with_classes
from cdm_cli.options import Report

GOOD, ABSENT = "good", "not there yet"
PIECE = 2**22
Check = tuple[str, Callable[[], str]]  # name of a file; the check returns GOOD, or raises CdmError


@dataclass(frozen=True)
class VerifiedStage:
    """What was found. state: "good", "damaged" or "unfinished"; files: one row for each."""

    path: Path
    kind: str
    state: str
    checkpoints: int
    incomplete: list[str]
    files: list[dict[str, str]]

    def failure(self) -> CdmError | None:
        """Return BadInputError for damage, MissingError for a stage without weights."""
        bad = [row["file"] for row in self.files if row["state"] not in (GOOD, ABSENT)]
        if bad:
            return BadInputError(
                f"{self.path}: {len(bad)} of {len(self.files)} files are damaged: {', '.join(bad)}",
                kept="they were left as they are",
                next="restore them, or train on from an earlier checkpoint",
            )
        if self.state == "unfinished":
            return MissingError(
                f"{self.path} has no {EMA} yet",
                next=f"cdm train {self.path.resolve().name}, which continues",
            )
        return None


def verify_stage(directory: Path, report: Report) -> VerifiedStage:
    """Check stage.json, the weights and every checkpoint of a stage directory."""
    kind, checks = "stage", [(STAGE_FILE, lambda: _readable(directory))]
    try:
        config = read_stage_file(directory).plan.stage
        kind = config.kind
        checks += _weights(directory, config)
    except CdmError:
        pass  # the first check says so; what the weights should be is not known
    steps = checkpoints(directory)
    for step in steps:
        checks += _checkpoint(step, f"{CHECKPOINTS}/{step.name}/")
    return _verdict(directory, kind, checks, len(steps), report)


def verify_checkpoint(directory: Path, report: Report) -> VerifiedStage:
    """Check the files of one checkpoint."""
    return _verdict(directory, "checkpoint", list(_checkpoint(directory, "")), 1, report)


def _verdict(
    directory: Path, kind: str, checks: list[Check], steps: int, report: Report
) -> VerifiedStage:
    rows: list[dict[str, str]] = []
    with report.track("verify", len(checks), "files") as advance:
        for name, check in checks:
            rows.append({"file": name, "state": _state(check)})
            advance(1, name)
    found = {row["state"] for row in rows}
    damaged = bool(found - {GOOD, ABSENT})
    state = "damaged" if damaged else "unfinished" if ABSENT in found else "good"
    return VerifiedStage(directory, kind, state, steps, _incomplete(directory), rows)


def _state(check: Callable[[], str]) -> str:
    try:
        return check()
    except CdmError as error:
        return error.what


def _readable(directory: Path) -> str:
    read_stage_file(directory)
    return GOOD


def _weights(directory: Path, config: AnyStageConfig) -> list[Check]:
    """Check the weights against their own digest and against stage.json."""
    expected = empty_net(with_classes(config)).state_dict()

    def check(path: Path) -> str:
        if path.name == EMA and not path.exists():
            return ABSENT
        read_weights(path, expected)
        return GOOD

    paths = [directory / EMA, *([directory / BEST] if (directory / BEST).exists() else [])]
    return [(path.name, lambda path=path: check(path)) for path in paths]


def _checkpoint(directory: Path, prefix: str) -> Iterator[Check]:
    """Check the files of a checkpoint against its manifest."""
    try:
        manifest = read_manifest(directory)
    except CdmError as error:
        yield f"{prefix}{MANIFEST}", lambda error=error: error.what
        return
    yield f"{prefix}{MANIFEST}", lambda: GOOD
    for name, entry in manifest.files.items():
        path, sha256 = directory / name, entry.sha256
        yield f"{prefix}{name}", lambda path=path, sha256=sha256: _same_sha256(path, sha256)


def _same_sha256(path: Path, sha256: str) -> str:
    hashed, piece = hashlib.sha256(), bytearray(PIECE)
    with open_regular(path) as file:
        while count := file.readinto(piece):
            hashed.update(memoryview(piece)[:count])
    if hashed.hexdigest() != sha256:
        raise BadInputError(f"{path} is damaged: its SHA-256 is not that of the manifest")
    return GOOD


def _incomplete(directory: Path) -> list[str]:
    """Return checkpoints without a manifest: begun or half removed, they do not count."""
    home = directory / CHECKPOINTS
    if not home.is_dir():
        return []
    complete = set(checkpoints(directory))
    found = (path for path in home.iterdir() if STEP_NAME.fullmatch(path.name))
    return sorted(path.name for path in found if path not in complete)
