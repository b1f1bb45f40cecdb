"""Label tables: csv and NVlabs's dataset.json -> file: class id or class name.

A column of whole numbers (3, or 3.0) holds ids, any other holds names. A column that is whole
numbers but for some cells, or has a cell that says there is no label (nan, null, -1), is an error
that names the cell.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.data.images import BadImageError
from cdm_cli.data.listing import MAX_TABLE_BYTES, SUFFIXES, read_regular
from cdm_cli.data.skips import as_unicode, make_printable_name
from cdm_cli.errors import BadInputError
from cdm_cli.names import MOST_CLASSES
from cdm_cli.translation import no_input
from cdm_cli.units import format_count

JSON_FORM = 'expected {"labels": [["path", k], ...]} or {"labels": {"path": k}}'
CSV_FORM = "expected lines of file,label or file,class"

FILE = ("file", "filename", "file_name", "path", "image")
LABEL = ("label", "class_id", "y")
NAME = ("class_name", "name")  # whose cells are names, however much they look like ids
CLASS = ("class", *NAME)
WHOLE = re.compile(r"([0-9]{1,18})(?:\.0*)?")
NUMBER = re.compile(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", re.IGNORECASE)
HEADERS = (
    f"the first line names a column of files ({', '.join(FILE)}) and one of labels "
    f"({', '.join(LABEL)}) or classes ({', '.join(CLASS)})"
)
NO_LABEL = {"-1", "-1.0", "nan", "null", "<na>"}


@dataclass(frozen=True)
class LabelTable:
    """values: file -> class id for all files, or class name for all. names: of ids 0..K - 1."""

    values: dict[str, int] | dict[str, str]
    names: tuple[str, ...] | None = None


class LabelRow(NamedTuple):
    """One label. where: the file and the line or entry that tells it."""

    where: str
    file: str
    value: Any


def read_label_table(path: Path) -> LabelTable:
    """Read a .json or .csv table. Raises MissingError, BadInputError naming the line."""
    if not path.exists():
        raise no_input(path)
    try:
        data = read_regular(path, MAX_TABLE_BYTES, follow=True)
    except BadImageError as error:
        raise BadInputError(f"{path} cannot be used: {error}") from error
    if path.suffix.lower() != ".json":
        return _read_csv(data, str(path))
    table = read_json(data, str(path))
    if table is None:
        raise BadInputError(f"{path} has no labels", next=JSON_FORM)
    return table


def read_json(data: bytes, where: str) -> LabelTable | None:
    """Read dataset.json; None where it says that there are no labels. Raises BadInputError.

    Besides what NVlabs writes, `cdm export` gives the names of the ids: {"classes": [...]}.
    """
    try:
        told: Any = json.loads(data)
        labels: Any = told["labels"]
        pairs: list[Any] = list(labels.items() if isinstance(labels, dict) else labels or ())
        rows = [
            LabelRow(f"{where}, entry {i}", str(file), value)
            for i, (file, value) in enumerate(pairs)
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = f"{where} is no label table ({type(error).__name__})"
        raise BadInputError(text, next=JSON_FORM) from error
    if not rows:
        return None
    check_names(rows, said=True)
    values = collect_values(rows, JSON_FORM)
    return LabelTable(values, _read_names(told.get("classes"), values, where))


def _read_names(names: Any, values: Mapping[str, int | str], where: str) -> tuple[str, ...] | None:
    """Check the names of the ids, if there are any. Raises BadInputError."""
    if names is None or any(isinstance(value, str) for value in values.values()):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{where}: classes is no list of names", next='"classes": ["cat", …]')
    top = max(int(value) for value in values.values())
    if top >= len(names):
        raise BadInputError(f"{where}: class {top} has no name, there are {len(names)}")
    return tuple(as_unicode(name) for name in names)


class _Columns(NamedTuple):
    """The columns of a csv, by index. headed: whether the first line named the class column."""

    file: int
    label: int | None
    name: int | None
    headed: bool


def _read_csv(data: bytes, where: str) -> LabelTable:
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    try:
        reader = csv.reader(text, strict=True)
        lines = [(f"{where}, line {reader.line_num}", line) for line in reader if line]
    except csv.Error as error:
        raise BadInputError(f"{where} is no csv ({error})", next=CSV_FORM) from error
    if not lines:
        raise BadInputError(f"{where} has no labels", next=CSV_FORM)
    columns, has_header = _find_columns(*lines[0])
    body = lines[has_header:]
    if not body:
        raise BadInputError(f"{where} has no labels", next=CSV_FORM)

    def read_rows(column: int) -> list[LabelRow]:
        return [LabelRow(at, *_read_cells(at, line, columns.file, column)) for at, line in body]

    if columns.label is not None and columns.name is not None:
        return _join_columns(read_ids(read_rows(columns.label)), read_rows(columns.name), where)
    only = columns.name if columns.label is None else columns.label
    assert only is not None
    return LabelTable(collect_values(read_ids(read_rows(only), names=columns.headed), CSV_FORM))


def _find_columns(at: str, first: list[str]) -> tuple[_Columns, bool]:
    """Return where the columns are, and whether the first line tells it. Raises BadInputError."""
    head = [cell.strip().lower() for cell in first]
    has_header = any(cell in FILE for cell in head)
    if not has_header and not is_picture(head[0]):
        told = ", ".join(repr(make_printable_name(cell)) for cell in first[:4])
        raise BadInputError(f"{at}: {told} is neither an image nor a known header", next=HEADERS)
    columns = head if has_header else ["file", "label", "class"][: len(head)]
    file, label, name = (_find(columns, words) for words in (FILE, LABEL, CLASS))
    if file is None or (label is None and name is None):
        raise BadInputError(f"{at}: there is no column of labels", next=HEADERS)
    return _Columns(file, label, name, label is None and columns[name or 0] in NAME), has_header


def is_picture(name: str) -> bool:
    """Tell by the name whether something is an image of a source."""
    return name.lower().endswith(SUFFIXES) or name.startswith("arr_0[")


def _find(columns: list[str], words: tuple[str, ...]) -> int | None:
    return next((i for i, cell in enumerate(columns) if cell in words), None)


def _read_cells(at: str, line: list[str], file: int, column: int) -> tuple[str, str]:
    if len(line) <= max(file, column) or not line[column].strip():
        raise BadInputError(f"{at} has no label", next=CSV_FORM)
    return line[file].strip(), line[column].strip()


def read_ids(rows: list[LabelRow], *, names: bool = False) -> list[LabelRow]:
    """Return rows with ids (int) in place of text, if the text of every row is a whole number.

    names: that the column is headed as one of names, so that nothing else is checked. Raises
    BadInputError naming a cell that is odd (`check_names`).
    """
    found = [WHOLE.fullmatch(row.value) for row in rows]
    if all(found):
        ids = [int(match[1]) for match in found if match]
        return [row._replace(value=value) for row, value in zip(rows, ids, strict=True)]
    if not names:
        check_names(rows)
    return rows


def check_names(rows: list[LabelRow], *, said: bool = False) -> None:
    """Raise BadInputError naming a cell where a column of names looks like one of ids.

    It does where a cell says that there is no label (NO_LABEL); and where some cells are whole
    numbers and the others all look like numbers (1.5, 1e3), or are as few or fewer. said: that text
    and numbers are written differently, as in JSON, so that few others may stand beside numbers.
    """
    texts = [row for row in rows if isinstance(row.value, str)]
    odd = [row for row in texts if not WHOLE.fullmatch(row.value)]
    whole = len(texts) - len(odd)
    no_label = next((row for row in odd if row.value.lower() in NO_LABEL), None)
    numbers = all(NUMBER.fullmatch(row.value) for row in odd)
    if odd and (no_label or (whole and (numbers or (whole >= len(odd) and not said)))):
        row = no_label or odd[0]
        raise BadInputError(
            f"{row.where}: {make_printable_name(row.value)!r} is no class id, {whole} of "
            f"{format_count(len(texts), 'label', 'are')}",
            next="leave such images out of the table; or, if all are names, head them class_name",
        )


def _join_columns(labels: list[LabelRow], names: list[LabelRow], where: str) -> LabelTable:
    """Join columns of ids and names: one name for each id, and one id for each name."""
    values = collect_values(labels, CSV_FORM)
    told: dict[int | str, str] = {}
    for (at, _, label), (_, _, name) in zip(labels, names, strict=True):
        if told.setdefault(label, str(name)) != str(name):
            raise BadInputError(f"{at} calls class {label} {name!r}, before it was {told[label]!r}")
    if len(set(told.values())) < len(told) or any(isinstance(k, str) for k in told):
        raise BadInputError(f"{where} does not name its class ids one to one", next=CSV_FORM)
    top = max(int(k) for k in told)
    return LabelTable(values, tuple(told.get(k, str(k)) for k in range(top + 1)))


def collect_values(rows: Iterable[LabelRow], form: str) -> Any:
    """Return file -> label of rows, all ids in range or all names, one for each file.

    form: what an error advises. Raises BadInputError naming the row.
    """
    values: dict[str, int | str] = {}
    kinds: set[type] = set()
    for where, path, told in rows:
        value: Any = int(told) if isinstance(told, float) and told.is_integer() else told
        file = path.replace("\\", "/").removeprefix("./")
        kinds.add(type(value))
        if kinds not in ({int}, {str}) or value == "":
            text = make_printable_name(repr(value)[:60])
            raise BadInputError(f"{where}: {text} is no class id or name", next=form)
        if isinstance(value, int) and not 0 <= value < MOST_CLASSES:
            text = f"{where}: class {value} is outside 0..{MOST_CLASSES - 1}"
            raise BadInputError(text, next=form)
        if values.setdefault(file, value) != value:
            raise BadInputError(f"{where}: {make_printable_name(file)!r} has another label before")
    return values
