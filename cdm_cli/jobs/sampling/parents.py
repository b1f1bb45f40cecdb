"""What a store was made from, found again by digest: stages in runs/, stores in the directory.

Nothing large is read for it: a file of weights tells its digest in its header, a store those of
its blocks. Whoever loads what was found compares the digest with the contents.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.cascade.stagefile import compute_stage_digest, list_stages, read_stage_file
from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.sampling.headers import Header, read_weights_digest
from cdm_cli.jobs.sampling.provenance import list_parents


class StageFound(NamedTuple):
    """A stage directory, and which of its weights: ema, best or step-…"""

    directory: Path
    weights: str


def find_stage_of(digest: str, runs: Path) -> StageFound | None:
    """Return the first stage in runs whose weights and configuration have this digest, or None."""
    for name in list_stages(runs):
        found = find_weights(runs / name, digest)
        if found is not None:
            return found
    return None


def find_weights(directory: Path, digest: str) -> StageFound | None:
    """Return which weights of a stage directory have this digest, None where none have."""
    return next((found for found, has in _list_digests(directory) if has == digest), None)


def find_stage_digest(header: Header, weights: str) -> str:
    """Return the digest of a stage with some of its weights, from headers alone.

    Raises UsageError and MissingError where there are no such weights.
    """
    return compute_stage_digest(header.config, read_weights_digest(header.directory, weights))


def _list_digests(directory: Path) -> Iterator[tuple[StageFound, str]]:
    """Yield the digest that each file of weights gives a stage, as `load_stage` computes it."""
    try:
        config = read_stage_file(directory).plan.stage
    except CdmError:
        return
    steps = reversed([path.name for path in list_checkpoints(directory)])
    for weights in ("ema", "best", *steps):
        try:
            said = read_weights_digest(directory, weights)
        except CdmError:
            continue
        yield StageFound(directory, weights), compute_stage_digest(config, said)


def find_store_of(digest: str, name: str, directories: list[Path]) -> Path | None:
    """Return the store with this digest: that of its recorded name, any other, or None."""
    for directory in dict.fromkeys(directories):
        named = directory / Path(name).name
        others = sorted(path for path in directory.glob("*.h5") if path != named)
        for path in (named, *others):
            if path.is_file() and find_store_digest(path) == digest:
                return path
    return None


def find_store_digest(path: Path) -> str:
    """Return the digest of a store, "" for a file that is none."""
    try:
        with open_store(path) as store:
            return store.digest
    except CdmError:
        return ""


def find_parents(
    provenance: Mapping[str, Any], runs: Path, directories: list[Path]
) -> list[dict[str, str]]:
    """Return the parents, and where each is found: "" for nowhere, or of another kind."""
    rows: list[dict[str, str]] = []
    for row in list_parents(provenance):
        where = ""
        if row["role"] == "stage":
            stage = find_stage_of(row["digest"], runs)
            where = f"{stage.directory} ({stage.weights})" if stage else ""
        elif row["role"] == "lowres":
            where = str(find_store_of(row["digest"], row["name"], directories) or "")
        rows.append({**row, "found": where})
    return rows
