"""The files of a stage directory, each compared with the SHA-256 that was written with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.saved import (
    BEST,
    CHECKPOINTS,
    EMA,
    MANIFEST,
    STEP_NAME,
    check_file,
    is_complete,
    list_checkpoints,
    read_manifest,
)
from cdm_cli.cascade.stagefile import STAGE_FILE, read_stage_file
from cdm_cli.cascade.weights import read_weights
from cdm_cli.config import AnyStageConfig
from cdm_cli.errors import BadInputError, CdmError, MissingError, quote
from cdm_cli.jobs.training.cost import assume_classes
from cdm_cli.report import Report
from cdm_cli.units import format_count

GOOD, ABSENT, REMOVED = "good", "not there yet", "removed meanwhile"
HARMLESS = {GOOD, ABSENT, REMOVED}
Check = tuple[str, Callable[[], str]]  # name of a file; the check returns GOOD, or raises CdmError


@dataclass(frozen=True)
class VerifiedStage:
    """What was found. files: one row for each. incomplete: checkpoints without a manifest.

    state: "good", "damaged", "unfinished" (no EMA weights yet) or "removed", since a training that
    goes on removes older checkpoints while they are read.
    """

    path: Path
    kind: str
    state: str
    checkpoints: int
    incomplete: list[str]
    files: list[dict[str, str]]

    def show_in_short(self) -> list[str]:
        """Return one line where all is well, nothing otherwise."""
        if self.state != "good" or self.incomplete:
            return []
        files, steps = len(self.files), self.checkpoints
        saved = f", {format_count(steps, 'checkpoint')}" if steps else ""
        return [f"{self.path}: good, {format_count(files, 'file')}{saved}, each as it was written"]

    def failure(self) -> CdmError | None:
        """Return BadInputError for damage, MissingError for a stage without weights."""
        bad = [row["file"] for row in self.files if row["state"] not in HARMLESS]
        if bad:
            return BadInputError(
                f"{self.path}: {len(bad)} of {len(self.files)} files are damaged: {', '.join(bad)}",
                kept="they were left as they are",
                next="restore them, or train on from an earlier checkpoint",
            )
        if self.state == "unfinished":
            return MissingError(
                f"{self.path} has no {EMA} yet",
                next=f"cdm train {quote(self.path.resolve().name)}, which continues",
            )
        if self.state == "removed":
            return MissingError(
                f"{self.path} was removed while it was read: the training goes on",
                next=f"cdm verify {quote(self.path.parent.parent)}",
            )
        return None


def verify_stage(directory: Path, report: Report) -> VerifiedStage:
    """Check stage.json, the weights and every checkpoint of a stage directory."""
    kind, checks = "stage", [(STAGE_FILE, lambda: _check_stage_file(directory))]
    try:
        config = read_stage_file(directory).plan.stage
        kind = config.kind
        checks += _list_weights_checks(directory, config)
    except CdmError:
        pass  # the first check says so; what the weights should be is not known
    steps = list_checkpoints(directory)
    for step in steps:
        checks += _list_checkpoint_checks(step, f"{CHECKPOINTS}/{step.name}/")
    return _conclude(directory, kind, checks, len(steps), report)


def verify_checkpoint(directory: Path, report: Report) -> VerifiedStage:
    """Check the files of one checkpoint."""
    return _conclude(
        directory, "checkpoint", list(_list_checkpoint_checks(directory, "")), 1, report
    )


def _conclude(
    directory: Path, kind: str, checks: list[Check], steps: int, report: Report
) -> VerifiedStage:
    rows: list[dict[str, str]] = []
    with report.track("verify", len(checks), "files") as advance:
        for name, check in checks:
            rows.append({"file": name, "state": _run_check(check)})
            advance(1, name)
    found = {row["state"] for row in rows}
    state = "damaged" if found - HARMLESS else "unfinished" if ABSENT in found else "good"
    if state == "good" and kind == "checkpoint" and REMOVED in found:
        state = "removed"
    steps -= len({Path(row["file"]).parent for row in rows if row["state"] == REMOVED})
    return VerifiedStage(directory, kind, state, steps, _list_incomplete(directory), rows)


def _run_check(check: Callable[[], str]) -> str:
    try:
        return check()
    except CdmError as error:
        return error.what


def _check_stage_file(directory: Path) -> str:
    read_stage_file(directory)
    return GOOD


def _list_weights_checks(directory: Path, config: AnyStageConfig) -> list[Check]:
    """Check the weights against their own digest and against stage.json."""
    expected = build_empty_net(assume_classes(config)).state_dict()

    def check(path: Path) -> str:
        if path.name == EMA and not path.exists():
            return ABSENT
        read_weights(path, expected)
        return GOOD

    paths = [directory / EMA, *([directory / BEST] if (directory / BEST).exists() else [])]
    return [(path.name, lambda path=path: check(path)) for path in paths]


def _list_checkpoint_checks(directory: Path, prefix: str) -> Iterator[Check]:
    """Check the files of a checkpoint against its manifest."""
    try:
        manifest = read_manifest(directory)
    except CdmError as error:
        what = error.what if is_complete(directory) else REMOVED
        yield f"{prefix}{MANIFEST}", lambda: what
        return
    yield f"{prefix}{MANIFEST}", lambda: GOOD
    for name, entry in manifest.files.items():
        yield f"{prefix}{name}", partial(_check_unless_removed, directory, name, entry.sha256)


def _check_unless_removed(directory: Path, name: str, sha256: str) -> str:
    try:
        check_file(directory / name, sha256)
    except CdmError:
        if is_complete(directory):
            raise
        return REMOVED
    return GOOD


def _list_incomplete(directory: Path) -> list[str]:
    """Return the names of checkpoints without a manifest, which were begun or half removed."""
    home = directory / CHECKPOINTS
    if not home.is_dir():
        return []
    complete = set(list_checkpoints(directory))
    found = (path for path in home.iterdir() if STEP_NAME.fullmatch(path.name))
    return sorted(path.name for path in found if path not in complete)
