"""What of a workspace is needed by what else: the weights and stores that others were made from."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdm_cli.data import pruned
from cdm_cli.errors import CdmError
from cdm_cli.jobs.workspace.look import is_directory, is_file, list_paths, read_json_object
from cdm_cli.jobs.workspace.scores import find_scores
from cdm_cli.jobs.workspace.stages import Weights
from cdm_cli.jobs.workspace.stores import is_store_name, open_unlinked
from cdm_cli.names import CURVE_FILE

DIGEST = re.compile(r"[0-9a-f]{64}")
MADE = ("identity", "parents")
Needs = dict[str, str]  # digest: the name of what was made from what has it


def find_needs(workspace: Path) -> Needs:
    """Return every digest that something in a workspace was made from, with the name of that thing.

    Stores, records of pruned stores, and JSON files from which a command continues say what they
    were made from. They are looked for in the workspace, and in each directory directly in it.
    """
    needs: Needs = {}
    for path in _list_files(workspace):
        with suppress(CdmError, OSError):
            for digest in DIGEST.findall(json.dumps(_read_provenance(path))):
                needs.setdefault(digest, str(path.relative_to(workspace)))
    return needs


def _list_files(workspace: Path) -> Iterator[Path]:
    inside = list_paths(workspace)
    for path in inside:
        if is_file(path):
            yield path
        elif is_directory(path):
            yield from (found for found in list_paths(path) if is_file(found))


def _read_provenance(path: Path) -> Any:
    """Return what a file says it was made from; of a point of a sweep and a table nothing."""
    if is_store_name(path):
        with open_unlinked(path) as store:
            return store.provenance
    if path.name.endswith(pruned.SUFFIX):
        found = pruned.read_record(path.with_name(path.name.removesuffix(pruned.SUFFIX)))
        return found.provenance if found else {}
    if path.suffix != ".json" or path.name == CURVE_FILE:  # its numbers need no checkpoint
        return {}
    values = read_json_object(path)
    return {name: said for name, said in values.items() if isinstance(said, str) or name in MADE}


def find_reasons_to_keep(
    found: Sequence[Weights], workspace: Path
) -> Mapping[str, tuple[str, ...]]:
    """Return for each file of weights of a stage, by name, why it is kept; () if nothing needs it.

    Reasons are "newest" (the last checkpoint), "best" (chosen by --select, or of the lowest FID of
    a curve), and "made NAME".
    """
    needs, best = find_needs(workspace), _find_best(found, workspace)
    steps = [weights.name for weights in found if weights.name.startswith("step-")]
    newest = steps[-1:]
    return {
        weights.name: (
            *(["newest"] if weights.name in newest else []),
            *(["best"] if best & {weights.sha256, weights.step} else []),
            *_find_makers(weights, needs),
        )
        for weights in found
    }


def _find_makers(weights: Weights, needs: Needs) -> list[str]:
    made = [needs[digest] for digest in (weights.digest, weights.sha256) if digest in needs]
    return [f"made {name}" for name in dict.fromkeys(made)]


def _find_best(found: Sequence[Weights], workspace: Path) -> set[str | int | None]:
    """Return the step that --select chose, and the weights of the lowest FID that a curve knows."""
    scores = find_scores(workspace)
    judged = [weights.sha256 for weights in found if weights.sha256 in scores]
    lowest = min(judged, key=scores.__getitem__, default="")
    chosen = [weights.step for weights in found if weights.name == "best"]
    return {*([lowest] if lowest else []), *chosen} - {None}
