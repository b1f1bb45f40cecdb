"""Rows of `cdm ls` for directories that hold numbers: sweeps, curves, scores, statistics."""

from pathlib import Path
from typing import Any

from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.jobs.workspace.look import (
    find_newest,
    is_directory,
    is_file,
    list_paths,
    measure_size,
    read_json_object,
)
from cdm_cli.jobs.workspace.rows import Row, describe_or_tell_why, find_text
from cdm_cli.jobs.workspace.scores import read_scores
from cdm_cli.names import CAS_FILE, CAS_TABLE, CURVE_FILE, RACE_FILE, SWEEP_FILE

STATS = ".h5.stats"
JUDGED = {SWEEP_FILE: "sweep", CURVE_FILE: "curve", CAS_FILE: "cas"}


def describe_folder(directory: Path) -> Row | None:
    """Return the row of a directory; None for one in which cdm made nothing."""
    for file, kind in JUDGED.items():
        if is_file(directory / file):
            return _describe_judged(directory, directory / file, kind)
    if directory.name.endswith(STATS):
        made_from = (directory.name.removesuffix(".stats"),)
        return _describe(directory, "statistics", "kept", directory, made_from=made_from)
    if is_directory(directory / "runs"):
        return _describe(directory, "workspace", "", directory / "runs")
    return None


def _describe(directory: Path, kind: str, state: str, dated: Path, **more: Any) -> Row:
    when, size = find_newest(dated), measure_size(directory)
    name = f"{directory.name}/"
    return Row(name=name, kind=kind, state=state, size=size, when=when, **more)


def _describe_judged(directory: Path, file: Path, kind: str) -> Row:
    def look() -> Row:
        values = read_json_object(file)
        best = min((score for _, score in read_scores(values)), default=None)
        names = dict.fromkeys(row["name"] for row in list_parents(values))
        names |= {} if kind != "cas" else {find_text(values, "samples"): None}
        return _describe(
            directory, kind, _describe_state(directory, kind, values), file,
            fid=best.fid if best else None, made_from=tuple(filter(None, names)),
        )  # fmt: skip

    return describe_or_tell_why(f"{directory.name}/", kind, look)


def _describe_state(directory: Path, kind: str, values: dict[str, Any]) -> str:
    """Return how many points are judged, or whether a score is."""
    if kind == "cas":
        return "finished" if is_file(directory / CAS_TABLE) else "unfinished"
    if kind == "curve":
        return f"{_count(values, 'points')} judged"
    num, race = len(_list_points(directory)), _describe_race(directory)
    return ", ".join([*([f"{num} judged"] if num or not race else []), *race])


def _describe_race(directory: Path) -> list[str]:
    """Return in words how a race stands, nothing where there is none."""
    if not is_file(directory / RACE_FILE):
        return []
    values = read_json_object(directory / RACE_FILE)
    return [f"race: {_count(values, 'left')} of {_count(values, 'points')} left"]


def _count(values: dict[str, Any], name: str) -> int:
    found = values.get(name)
    return len(found) if isinstance(found, list) else 0


def _list_points(directory: Path) -> list[str]:
    """Return the files of points in the directory of a sweep: all its JSON but its own."""
    names = list_paths(directory)
    points = [path.name for path in names if path.suffix == ".json"]
    return [name for name in points if name not in (*JUDGED, RACE_FILE)]
