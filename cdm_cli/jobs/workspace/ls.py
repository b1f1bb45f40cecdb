"""`cdm ls`: the stages and stores of a workspace, or the checkpoints of a stage, in one table.

Only headers are read, no torch is loaded, and no link is followed. What is broken is a row that
says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from cdm_cli.cascade.stagefile import read_stage_file, resolve_path
from cdm_cli.data.pruned import SUFFIX
from cdm_cli.errors import CdmError
from cdm_cli.jobs.workspace.folders import folder_row
from cdm_cli.jobs.workspace.look import MOST_NAMES, is_directory, paths_in
from cdm_cli.jobs.workspace.needs import reasons_to_keep
from cdm_cli.jobs.workspace.rows import Listing, Row, in_bytes
from cdm_cli.jobs.workspace.scores import Scores, scores_in
from cdm_cli.jobs.workspace.stages import (
    checkpoint_rows,
    is_stage,
    select_readable,
    stage_row,
    weights_in,
)
from cdm_cli.jobs.workspace.stores import PRUNED, is_store_name, pruned_row, store_row
from cdm_cli.names import RUNS
from cdm_cli.options.workspace import ListOptions
from cdm_cli.report import Report
from cdm_cli.translation import no_input

REMAKE = "pruned: cdm inspect FILE says which command makes the images again"
NOTHING = "nothing of cdm is here: cdm prepare makes a store, cdm train a stage, cdm demo both"


def run(options: ListOptions, report: Report) -> Listing:
    """Return what is at a path: a workspace, the checkpoints of a stage, or a store.

    Raises MissingError where there is nothing of that name.
    """
    path = resolve_path(options.path, Path(RUNS))
    if is_stage(path):
        return _checkpoints(path)
    if path.is_dir():
        os.scandir(path).close()  # raises where it cannot be read
        rows = list(_rows(path))
        return Listing(path, rows, _notes(rows))
    row = _file_row(path, {})
    if row is None:
        raise no_input(path)
    return Listing(path, [row])


def _checkpoints(stage: Path) -> Listing:
    try:
        file = read_stage_file(stage)
    except CdmError:
        return Listing(stage, [stage_row(stage, stage.name, {})])
    seen = weights_in(stage, file)
    kept, scores = reasons_to_keep(select_readable(seen), Path()), scores_in(Path())
    rows = list(checkpoint_rows(stage, seen, file.plan.training.steps, scores, kept))
    return Listing(stage, rows, [] if rows else [f"{stage} has no checkpoint yet"])


def runs_of(workspace: Path) -> Path:
    """Return where the stages of a workspace are: for the current one, as all commands say."""
    return Path(RUNS) if workspace == Path() else workspace / "runs"


def _rows(workspace: Path) -> Iterator[Row]:
    """Yield the stages, then the stores, then what else is in a directory."""
    scores, runs = scores_in(workspace), runs_of(workspace)
    inside = paths_in(workspace)
    staged = paths_in(runs) if is_directory(runs) else []
    if runs.is_symlink():
        yield _link(runs, str(runs))
    for directory in staged:
        if is_stage(directory):
            yield stage_row(directory, str(directory.name), scores)
        elif directory.is_symlink():
            yield _link(directory, f"{runs}/{directory.name}")
    for path in sorted(inside, key=is_directory):
        found = _row(path, scores) if path != runs else None
        if found is not None:
            yield found


def _row(path: Path, scores: Scores) -> Row | None:
    if is_stage(path):
        return stage_row(path, path.name, scores)
    if is_directory(path):
        return folder_row(path)
    return _file_row(path, scores)


def _file_row(path: Path, scores: Scores) -> Row | None:
    """Return the row of a store, of a link that looks like one, or of a record of one."""
    if path.name.endswith(SUFFIX):
        path = path.with_name(path.name.removesuffix(SUFFIX))
        return None if os.path.lexists(path) else pruned_row(path, scores)
    if not os.path.lexists(path):
        return pruned_row(path, scores)
    if not is_store_name(path):
        return None
    return _link(path, path.name) if path.is_symlink() else store_row(path, scores)


def _link(path: Path, name: str) -> Row:
    target = os.readlink(path)
    return Row(name=name, kind="link", state="not followed", note=f"cdm ls {target}")


def _notes(rows: list[Row]) -> list[str]:
    if not rows:
        return [NOTHING]
    total = in_bytes(sum(row.size or 0 for row in rows))
    more = [f"no more than {MOST_NAMES} names were looked at"] if len(rows) >= MOST_NAMES else []
    more += [REMAKE] if any(row.state == PRUNED for row in rows) else []
    return [f"{len(rows)} in all, {total}", *more]
