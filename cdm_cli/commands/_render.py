"""How a command shows what a job returned: one JSON object, or aligned text and tables.

A result is a mapping, a dataclass, a settings model or a table of metrics. Its scalars
become `name  value` lines; a table, or a list of flat mappings, becomes columns.
Results go to stdout.
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import typer

from cdm_cli.commands._columns import Columns, align, draw, fold, make_columns, shorten
from cdm_cli.commands._report import choose_report
from cdm_cli.errors import make_printable
from cdm_cli.startup import tell_by

if TYPE_CHECKING:
    from cdm_cli.errors import CdmError
    from cdm_cli.report import Report
    from cdm_cli.settings import Settings

    O = TypeVar("O", bound=Settings)  # noqa: E741
Said = str | Mapping[str, object] | Sequence[Mapping[str, object]]
NAMED = re.compile(r"\S[^:]{0,30}?\s{2,}(?=\S)")
EMPTY = (None, "", [])  # what is not worth a line of text


@runtime_checkable
class Dumped(Protocol):
    """A result that says by itself what is shown of it."""

    def model_dump(self) -> dict[str, Any]:
        """Return what is shown, in order."""
        ...


@runtime_checkable
class Table(Protocol):
    """What a table of metrics offers: cells for people, plain values for machines."""

    def header(self) -> list[str]:
        """Return the titles of the columns."""
        ...

    def lines(self) -> list[list[str]]:
        """Return the cells of each row."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        ...

    def gather_notes(self) -> list[str]:
        """Return remarks that belong below the table."""
        ...


@runtime_checkable
class InShort(Protocol):
    """A result with a short form, which is shown unless -v or --json asks for all of it."""

    def show_in_short(self) -> "Sequence[Said]":
        """Return the short form in order: lines, values by name, and tables as rows."""
        ...


@runtime_checkable
class MayFail(Protocol):
    """A result that is shown whole, after which the command may still end with an error."""

    def failure(self) -> "CdmError | None":
        """Return the error to end with, None where there is none."""
        ...


def answer(ctx: typer.Context, options: "O", run: "Callable[[O, Report], object]") -> None:
    """Run a job on options that were checked, and show what it returns, once for all processes."""
    from cdm_cli.jobs.runtime.ranks import read_ranks

    report = choose_report(ctx)
    leads = read_ranks().rank == 0
    if leads and (defaults := _list_defaults(ctx)):
        report.say(f"{ctx.info_name}: by default {', '.join(defaults)}")
    if _wants_all(ctx):
        tell_by(report.say)
    result = run(options, report)
    if leads:
        show(result, as_json=bool(ctx.params.get("json")), whole=_wants_all(ctx))
    failure = result.failure() if isinstance(result, MayFail) else None
    if failure is not None:
        raise failure


def _wants_all(ctx: typer.Context) -> bool:
    params = ctx.find_root().params
    return bool(params.get("verbose") or params.get("debug"))


def _list_defaults(ctx: typer.Context) -> list[str]:
    """Return the files and stages that the user left to us, as `--out samples.h5`, `NAME base`."""
    said: list[str] = []
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        value = ctx.params.get(param.name or "")
        paths = value if isinstance(value, (list, tuple)) else [value]
        first = next(iter(paths), None)
        left = source is not None and source.name == "DEFAULT"
        flag = param.opts[0] if param.opts[0].startswith("-") else _name_argument(param)
        named = isinstance(first, Path) or (first and not flag.startswith("-"))
        if left and named and first != Path():
            said.append(f"{flag} {' '.join(map(str, paths))}")
    return said


def _name_argument(param: Any) -> str:
    return str(param.metavar or param.opts[0].upper())


def show(result: object, *, as_json: bool, whole: bool = True) -> None:
    """Print a result: one JSON object, or text; without whole its short form, where it has one."""
    if as_json:
        typer.echo(json.dumps(make_plain(result), allow_nan=False))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in _write_lines(_lay_out(result, whole=whole), width):
        typer.echo(line)


def make_plain(value: object) -> Any:
    """Return a result as values of JSON: paths become text, NaN and infinity null."""
    if isinstance(value, Table):
        return make_plain(value.to_json())
    if _find_members(value) is not None:
        return {name: make_plain(item) for name, item in (_find_members(value) or {}).items()}
    if isinstance(value, (list, tuple)):
        return [make_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _find_members(value: object) -> dict[str, Any] | None:
    """Return the fields of a mapping, dataclass, settings model or Dumped, or None for others."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    names = getattr(type(value), "model_fields", None)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    return value.model_dump() if isinstance(value, Dumped) else None


def write_lines(result: object, *, whole: bool = True) -> list[str]:
    """Return a result as lines of text, as they stand in a pipe."""
    return _write_lines(_lay_out(result, whole=whole), None)


def _write_lines(parts: Iterable[str | Columns], width: int | None) -> list[str]:
    """Return lines; width: of a terminal, on which rich draws the tables."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str):
            line = make_printable(part)
            lines += [line] if width is None else fold(line, width, _find_value(line))
        else:
            lines += align(part) if width is None else draw(part, width)
    return lines


def _find_value(line: str) -> int:
    """Return where the value of a line `name  value` stands, 0 in any other line."""
    named = NAMED.match(line)
    return named.end() if named else 0


def _lay_out(result: object, *, whole: bool) -> list[str | Columns]:
    """Return what a person reads: the answer first, then scalars, then tables under their names."""
    if isinstance(result, Table):
        rows = [Columns(result.header(), result.lines())] if result.lines() else []
        return [*rows, *result.gather_notes()]
    short = [part for said in _summarise(result) for part in _lay_out_said(said)]
    if short and not whole:
        return short
    unshown = getattr(result, "unshown", ())  # in --json alone
    values = {
        name: item for name, item in (_find_members(result) or {}).items() if name not in unshown
    }
    tables = {name: value for name, value in values.items() if _is_table(value)}
    scalars = _list_scalars({name: value for name, value in values.items() if name not in tables})
    parts = [*short, *([""] if short else []), *scalars]
    for name, value in tables.items():
        parts += ["", f"{name.replace('_', ' ')}:"]
        parts += (
            _lay_out(value, whole=True)
            if isinstance(value, Table)
            else [make_columns(make_plain(value))]
        )
    return parts if scalars or short else parts[1:]


def _summarise(result: object) -> "Sequence[Said]":
    return result.show_in_short() if isinstance(result, InShort) else []


def _lay_out_said(said: "Said") -> Sequence[str | Columns]:
    if isinstance(said, str):
        return [said]
    return _list_scalars(said) if isinstance(said, Mapping) else [make_columns(make_plain(said))]


def _list_scalars(values: Mapping[str, object]) -> list[str]:
    """Return a line for each value that is not empty, `name  value`."""
    flat = {
        name: value for name, value in _flatten(make_plain(values)).items() if value not in EMPTY
    }
    width = max((len(name) for name in flat), default=0)
    return [f"{name:{width}}  {shorten(value)}" for name, value in flat.items()]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, their names joined: `plan training steps`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        words = (each if each.isupper() else each.replace("_", " ") for each in name.split(" "))
        spelled = prefix + " ".join(words)  # environment CDM_DEVICE
        flat |= _flatten(value, f"{spelled} ") if isinstance(value, dict) else {spelled: value}
    return flat


def _is_table(value: object) -> bool:
    if isinstance(value, Table):
        return True
    rows = value if isinstance(value, (list, tuple)) else ()
    return bool(rows) and all(_find_members(row) is not None for row in rows)
