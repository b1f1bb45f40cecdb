"""What of a workspace can be made again, and is needed by nothing: what `cdm prune` removes.

Of a stage: checkpoints that are not the newest whole one, not the best, and made no store. Of a
sweep: images of judged points, of which the stage and the low-resolution store are still there.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdm_cli.cascade.saved import check_whole, list_checkpoints, list_leftovers
from cdm_cli.cascade.stagefile import read_stage_file
from cdm_cli.data.pruned import Pruned
from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.jobs.workspace.look import (
    is_directory,
    is_file,
    list_paths,
    measure_size,
    read_json_object,
)
from cdm_cli.jobs.workspace.needs import Needs, find_needs, find_reasons_to_keep
from cdm_cli.jobs.workspace.scores import read_scores
from cdm_cli.jobs.workspace.stages import find_stage_weights, is_stage, select_readable
from cdm_cli.jobs.workspace.stores import is_store_name, open_unlinked
from cdm_cli.names import SWEEP_FILE

CHECKPOINT, IMAGES, LEFTOVER = "checkpoint", "images", "half a checkpoint"


@dataclass(frozen=True)
class Item:
    """Something that can be removed.

    home: the stage or sweep that it belongs to. record: what is written in the place of the images
    of a point; None for a checkpoint.
    """

    path: Path
    home: Path
    what: str
    size: int
    record: Pruned | None = None


@dataclass(frozen=True)
class Kept:
    """Something that stays although it looks as if it could go, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class Surroundings:
    """What a workspace has, and what of it is needed, by digest.

    needs: what other things were made from. stages: the directory of a stage and the name of its
    weights. stores: the path.
    """

    needs: Needs
    stages: Mapping[str, tuple[Path, str]]
    stores: Mapping[str, Path]


def survey(workspace: Path, runs: Path) -> Surroundings:
    """Return what a workspace has and needs, from the headers of all its stages and stores."""
    stages: dict[str, tuple[Path, str]] = {}
    for directory in filter(is_stage, [*list_paths(runs), *list_paths(workspace)]):
        try:
            found = find_stage_weights(directory, read_stage_file(directory))
        except CdmError:
            continue
        stages |= {weights.digest: (directory, weights.name) for weights in select_readable(found)}
    return Surroundings(find_needs(workspace), stages, dict(_list_digests(workspace)))


def _list_digests(workspace: Path) -> Iterator[tuple[str, Path]]:
    inside = list_paths(workspace)
    deeper = [path for home in inside if is_directory(home) for path in list_paths(home)]
    for path in [*inside, *deeper]:
        if is_store_name(path) and is_file(path):
            try:
                with open_unlinked(path) as store:
                    yield store.digest, path
            except CdmError:
                continue


def find_in_stage(directory: Path, workspace: Path) -> Iterator[Item | Kept]:
    """Yield the checkpoints of a stage that can be removed, and those that stay, and why."""
    try:
        found = select_readable(find_stage_weights(directory, read_stage_file(directory)))
    except CdmError as error:
        yield Kept(directory, error.what)
        return
    kept = find_reasons_to_keep(found, workspace)
    older = [path for path in list_checkpoints(directory) if kept.get(path.name) == ()]
    if older:
        yield from _find_older_than_whole(directory, older)
    for path in list_leftovers(directory):
        yield Item(path, directory, LEFTOVER, measure_size(path))


def _find_older_than_whole(directory: Path, older: Sequence[Path]) -> Iterator[Item | Kept]:
    """Yield what is older than the newest checkpoint that a training could continue from."""
    found = list_checkpoints(directory)
    for path in reversed(found):
        try:
            check_whole(path)
        except CdmError as error:
            yield Kept(path, error.what)
            continue
        gone = [old for old in older if old.name < path.name]
        yield from (Item(old, directory, CHECKPOINT, measure_size(old)) for old in gone)
        return


def is_sweep(directory: Path) -> bool:
    """Whether a directory holds the points of a sweep."""
    return is_directory(directory) and is_file(directory / SWEEP_FILE)


def find_in_sweep(directory: Path, workspace: Path, runs: Path) -> Iterator[Item | Kept]:
    """Yield the images of points that can be removed, and those that stay, with the reason."""
    around = survey(workspace, runs)
    for path in list_paths(directory):
        if is_store_name(path) and is_file(path) and is_file(path.with_suffix(".json")):
            try:
                yield _look_at_point(path, directory, around)
            except (CdmError, OSError) as error:
                yield Kept(path, error.what if isinstance(error, CdmError) else str(error))


def _look_at_point(path: Path, directory: Path, around: Surroundings) -> Item | Kept:
    with open_unlinked(path) as store:
        point = read_json_object(path.with_suffix(".json"))
        why = _find_reason_to_keep(store, point, around)
        if why:
            return Kept(path, why)
        return Item(path, directory, IMAGES, os.path.getsize(path), _build_record(store, around))


def _find_reason_to_keep(store: Store, point: Mapping[str, Any], around: Surroundings) -> str:
    """Return why the images of a point stay, "" where nothing speaks against removing them."""
    if not store.finished:
        return "it is unfinished"
    if point.get("samples") != store.path.name or store.digest not in dict(read_scores(point)):
        return f"{store.path.with_suffix('.json').name} has no numbers of these images"
    if store.digest in around.needs:
        return f"{around.needs[store.digest]} was made from it"
    for parent in list_parents(store.provenance):
        there = around.stages if parent["role"] == "stage" else around.stores
        if parent["digest"] not in there:
            return f"{parent['name']}, which it was made from, is not here as it was"
    return "" if _build_command(store, around) else "it does not say what made it"


def _build_record(store: Store, around: Surroundings) -> Pruned:
    part = store.parts[""]
    return Pruned(
        num=part.num,
        resolution=max(part.resolutions),
        size=os.path.getsize(store.path),
        digest=store.digest,
        command=_build_command(store, around),
        numbers=store.path.with_suffix(".json").name,
        provenance=dict(store.provenance),
    )


def _build_command(store: Store, around: Surroundings) -> str:
    """Return the command that makes a store again, with the weights that made it, at its place."""
    said = store.provenance.get("command")
    parents = {row["role"]: row["digest"] for row in list_parents(store.provenance)}
    if not isinstance(said, str) or parents.get("stage") not in around.stages:
        return ""
    words, (_, weights) = shlex.split(said), around.stages[parents["stage"]]
    for flag, value in (("--weights", weights), ("--out", str(store.path))):
        place = words.index(flag) if flag in words else len(words)
        words[place : place + 2] = [flag, value]
    return shlex.join(words)
