"""`cdm ls`: the stages and stores of a workspace, or the checkpoints of a stage, in one table.

Only headers are read, no torch is loaded, and no link is followed. What is broken is a row that
says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from cdm_cli.cascade.stagefile import read_stage_file, resolve_path
from cdm_cli.data.pruned import SUFFIX
from cdm_cli.errors import BadInputError, CdmError
from cdm_cli.jobs.workspace.folders import describe_folder
from cdm_cli.jobs.workspace.look import MOST_NAMES, is_directory, list_paths
from cdm_cli.jobs.workspace.needs import find_reasons_to_keep
from cdm_cli.jobs.workspace.rows import Listing, Row, in_bytes
from cdm_cli.jobs.workspace.scores import Scores, find_scores
from cdm_cli.jobs.workspace.stages import (
    describe_checkpoints,
    describe_stage,
    find_stage_weights,
    is_stage,
    select_readable,
)
from cdm_cli.jobs.workspace.stores import PRUNED, describe_pruned, describe_store, is_store_name
from cdm_cli.names import RUNS
from cdm_cli.options.outputs import STORES
from cdm_cli.options.workspace import ListOptions
from cdm_cli.report import Report
from cdm_cli.translation import no_input

REMAKE = "pruned: cdm inspect FILE says which command makes the images again"
NOTHING = "nothing of cdm is here: cdm prepare makes a store, cdm train a stage, cdm demo both"


def run(options: ListOptions, report: Report) -> Listing:
    """Return what is at a path: a workspace, the checkpoints of a stage, or a store.

    Raises MissingError where there is nothing of that name, BadInputError for what is none of cdm.
    """
    path = resolve_path(options.path, Path(RUNS))
    if is_stage(path):
        return _list_checkpoints(path)
    if path.is_dir():
        os.scandir(path).close()  # raises where it cannot be read
        rows = list(_list_rows(path))
        return Listing(path, rows, _write_notes(rows))
    row = _describe_file(path, {})
    if row is None and os.path.exists(path):
        ends = " or ".join(STORES)
        raise BadInputError(
            f"{path} is no workspace, no stage, and no store, whose name ends in {ends}",
            next="cdm ls lists what is here",
        )
    if row is None:
        raise no_input(path)
    return Listing(path, [row])


def _list_checkpoints(stage: Path) -> Listing:
    try:
        file = read_stage_file(stage)
    except CdmError:
        return Listing(stage, [describe_stage(stage, stage.name, {})])
    seen = find_stage_weights(stage, file)
    kept, scores = find_reasons_to_keep(select_readable(seen), Path()), find_scores(Path())
    rows = list(describe_checkpoints(stage, seen, file.plan.training.steps, scores, kept))
    return Listing(stage, rows, [] if rows else [f"{stage} has no checkpoint yet"])


def find_runs(workspace: Path) -> Path:
    """Return where the stages of a workspace are: for the current one, as all commands say."""
    return Path(RUNS) if workspace == Path() else workspace / "runs"


def _list_rows(workspace: Path) -> Iterator[Row]:
    """Yield the stages, then the stores, then what else is in a directory."""
    scores, runs = find_scores(workspace), find_runs(workspace)
    inside = list_paths(workspace)
    staged = list_paths(runs) if is_directory(runs) else []
    if runs.is_symlink():
        yield _describe_link(runs, str(runs))
    for directory in staged:
        if is_stage(directory):
            yield describe_stage(directory, str(directory.name), scores)
        elif directory.is_symlink():
            yield _describe_link(directory, f"{runs}/{directory.name}")
    for path in sorted(inside, key=is_directory):
        found = _describe(path, scores) if path != runs else None
        if found is not None:
            yield found


def _describe(path: Path, scores: Scores) -> Row | None:
    if is_stage(path):
        return describe_stage(path, path.name, scores)
    if is_directory(path):
        return describe_folder(path)
    return _describe_file(path, scores)


def _describe_file(path: Path, scores: Scores) -> Row | None:
    """Return the row of a store, of a link that looks like one, or of a record of one."""
    if path.name.endswith(SUFFIX):
        path = path.with_name(path.name.removesuffix(SUFFIX))
        return None if os.path.lexists(path) else describe_pruned(path, scores)
    if not os.path.lexists(path):
        return describe_pruned(path, scores)
    if not is_store_name(path):
        return None
    return _describe_link(path, path.name) if path.is_symlink() else describe_store(path, scores)


def _describe_link(path: Path, name: str) -> Row:
    target = os.readlink(path)
    return Row(name=name, kind="link", state="not followed", note=f"cdm ls {target}")


def _write_notes(rows: list[Row]) -> list[str]:
    if not rows:
        return [NOTHING]
    total = in_bytes(sum(row.size or 0 for row in rows))
    more = [f"no more than {MOST_NAMES} names were looked at"] if len(rows) >= MOST_NAMES else []
    more += [REMAKE] if any(row.state == PRUNED for row in rows) else []
    return [f"{len(rows)} in all, {total}", *more]
