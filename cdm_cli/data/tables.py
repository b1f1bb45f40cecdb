"""Label tables: csv and NVlabs's dataset.json -> file: class id or class name."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.data.images import BadImageError
from cdm_cli.data.listing import MAX_TABLE_BYTES, read_regular
from cdm_cli.data.skips import printable
from cdm_cli.errors import BadInputError, MissingError

MAX_CLASSES = 1_000_000
JSON_FORM = 'expected {"labels": [["path", k], ...]} or {"labels": {"path": k}}'
CSV_FORM = "expected lines of file,label or file,class"

_FILE = ("file", "filename", "file_name", "path", "image")
_LABEL = ("label", "class_id", "y")
_CLASS = ("class", "class_name", "name")


@dataclass(frozen=True)
class Table:
    """values: file -> class id (all of them) or class name (all). names: of the ids, if told."""

    values: dict[str, int] | dict[str, str]
    names: tuple[str, ...] | None = None


class _Row(NamedTuple):
    where: str
    file: str
    value: int | str


def read_table(path: Path) -> Table:
    """Read a .json or .csv table. Raises MissingError, BadInputError naming the line."""
    if not path.exists():
        raise MissingError(f"{path} does not exist", next="check the path of --labels")
    try:
        data = read_regular(path, MAX_TABLE_BYTES)
    except BadImageError as error:
        raise BadInputError(f"{path} cannot be used: {error}") from error
    if path.suffix.lower() != ".json":
        return _read_csv(data, str(path))
    table = read_json(data, str(path))
    if table is None:
        raise BadInputError(f"{path} has no labels", next=JSON_FORM)
    return table


def read_json(data: bytes, where: str) -> Table | None:
    """Read dataset.json; None where it says that there are no labels. Raises BadInputError.

    Besides what NVlabs writes, `cdm export` gives the names of the ids: {"classes": [...]}.
    """
    try:
        told: Any = json.loads(data)
        labels: Any = told["labels"]
        pairs: list[Any] = list(labels.items() if isinstance(labels, dict) else labels or ())
        rows = [
            _Row(f"{where}, entry {i}", str(file), value) for i, (file, value) in enumerate(pairs)
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = f"{where} is no label table ({type(error).__name__})"
        raise BadInputError(text, next=JSON_FORM) from error
    if not rows:
        return None
    values = _values(rows, JSON_FORM)
    return Table(values, _names(told.get("classes"), values, where))


def _names(names: Any, values: Mapping[str, int | str], where: str) -> tuple[str, ...] | None:
    """Check the names of the ids, if there are any. Raises BadInputError."""
    if names is None or any(isinstance(value, str) for value in values.values()):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{where}: classes is no list of names", next='"classes": ["cat", …]')
    top = max(int(value) for value in values.values())
    if top >= len(names):
        raise BadInputError(f"{where}: class {top} has no name, there are {len(names)}")
    return tuple(names)


def _read_csv(data: bytes, where: str) -> Table:
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    try:
        lines = [line for line in csv.reader(text, strict=True) if line]
    except csv.Error as error:
        raise BadInputError(f"{where} is no csv ({error})", next=CSV_FORM) from error
    head = [cell.strip().lower() for cell in lines[0]] if lines else []
    is_header = any(cell in _FILE for cell in head)
    columns = head if is_header else ["file", "label", "class"][: len(head)]
    file, label, name = (_find(columns, words) for words in (_FILE, _LABEL, _CLASS))
    body = lines[is_header:]
    if file is None or (label is None and name is None) or not body:
        raise BadInputError(f"{where} has no labels", next=CSV_FORM)
    places = [f"{where}, line {i}" for i in range(1 + is_header, len(lines) + 1)]

    def rows(column: int) -> list[_Row]:
        cells = [_cells(line, at, file, column) for line, at in zip(body, places, strict=True)]
        numbers = all(value.isascii() and value.isdigit() for _, value in cells)
        return [
            _Row(at, path, int(value) if numbers else value)
            for at, (path, value) in zip(places, cells, strict=True)
        ]

    if label is not None and name is not None:
        return _both(rows(label), rows(name), where)
    return Table(_values(rows(label if label is not None else name or 0), CSV_FORM))


def _find(columns: list[str], words: tuple[str, ...]) -> int | None:
    return next((i for i, cell in enumerate(columns) if cell in words), None)


def _cells(line: list[str], where: str, file: int, column: int) -> tuple[str, str]:
    if len(line) <= max(file, column) or not line[column].strip():
        raise BadInputError(f"{where} has no label", next=CSV_FORM)
    return line[file].strip(), line[column].strip()


def _both(labels: list[_Row], names: list[_Row], where: str) -> Table:
    """Join columns of ids and names: one name for each id, and one id for each name."""
    values = _values(labels, CSV_FORM)
    told: dict[int | str, str] = {}
    for (at, _, label), (_, _, name) in zip(labels, names, strict=True):
        if told.setdefault(label, str(name)) != str(name):
            raise BadInputError(f"{at} calls class {label} {name!r}, before it was {told[label]!r}")
    if len(set(told.values())) < len(told) or any(isinstance(k, str) for k in told):
        raise BadInputError(f"{where} does not name its class ids one to one", next=CSV_FORM)
    top = max(int(k) for k in told)
    return Table(values, tuple(told.get(k, str(k)) for k in range(top + 1)))


def _values(rows: Iterable[_Row], form: str) -> Any:
    """Check every row, and that a file has one label. Raises BadInputError naming the row."""
    values: dict[str, int | str] = {}
    kinds: set[type] = set()
    for where, path, value in rows:
        file = path.replace("\\", "/").removeprefix("./")
        kinds.add(type(value))
        if kinds not in ({int}, {str}) or value == "":
            raise BadInputError(f"{where}: {value!r} is no class id or name", next=form)
        if isinstance(value, int) and not 0 <= value < MAX_CLASSES:
            text = f"{where}: class {value} is outside 0..{MAX_CLASSES - 1}"
            raise BadInputError(text, next=form)
        if values.setdefault(file, value) != value:
            raise BadInputError(f"{where}: {printable(file)!r} has another label before")
    return values
