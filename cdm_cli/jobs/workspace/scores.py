"""FIDs that are written down in a workspace, by the digest of what they are of.

Tables of `cdm eval -o`, points of sweeps, and curves say which samples or weights they judged.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from cdm_cli.errors import CdmError
from cdm_cli.jobs.workspace.look import is_directory, is_file, list_paths, read_json_object
from cdm_cli.names import CURVE_FILE, SWEEP_FILE

PREFERRED = "train"
MOST_TABLES, LARGE = 500, 1e300
DIRECTORIES = (SWEEP_FILE, CURVE_FILE)
Scores = dict[str, "Score"]


class Score(NamedTuple):
    """An FID. elsewhere: whether it is against something else than train.

    The better of two scores is the smaller tuple: any FID against train is before all others.
    """

    elsewhere: bool
    fid: float


def find_scores(workspace: Path) -> Scores:
    """Return the best FID of each digest, from at most MOST_TABLES tables of a workspace."""
    best: Scores = {}
    for path in _list_tables(workspace)[:MOST_TABLES]:
        with suppress(CdmError, OSError):
            for digest, score in read_scores(read_json_object(path)):
                best[digest] = min(score, best.get(digest, score))
    return best


def _list_tables(workspace: Path) -> list[Path]:
    """Return the .json files of a workspace, and of the sweeps and curves in it."""
    inside = list_paths(workspace)
    judged = [home for home in inside if is_directory(home) and _is_judged(home)]
    paths = [*inside, *(path for home in judged for path in list_paths(home))]
    return [path for path in paths if path.suffix == ".json" and is_file(path)]


def _is_judged(directory: Path) -> bool:
    return any(is_file(directory / name) for name in DIRECTORIES)


def read_scores(table: Any) -> Iterator[tuple[str, Score]]:
    """Yield (digest, score) for each FID of a table, a point of a sweep, or a curve."""
    for row in _list_dicts(table, "rows"):
        convention = row.get("convention")
        digest = convention.get("samples_digest") if isinstance(convention, dict) else None
        yield from _read_score(digest, row)
    for point in _list_dicts(table, "points"):
        saved = point.get("saved")
        for row in _list_dicts(point, "rows"):
            yield from _read_score(saved.get("sha256") if isinstance(saved, dict) else None, row)


def _list_dicts(values: Any, name: str) -> list[dict[str, Any]]:
    found = values.get(name) if isinstance(values, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _read_score(digest: Any, row: dict[str, Any]) -> Iterator[tuple[str, Score]]:
    value = row.get("value")
    if digest and isinstance(digest, str) and row.get("metric") == "fid" and is_number(value):
        yield digest, Score(row.get("reference") != PREFERRED, float(value))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < LARGE
