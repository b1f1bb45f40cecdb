"""How a command shows what a job returned: one JSON object, or aligned text and tables.

A result is a mapping, a dataclass, a settings model or a table of metrics. Its scalars
become `name  value` lines; a table, or a list of flat mappings, becomes aligned columns.
Results go to stdout.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import typer

from cdm_cli.commands._report import report_of
from cdm_cli.errors import printable

if TYPE_CHECKING:
    from cdm_cli.config import Settings
    from cdm_cli.errors import CdmError
    from cdm_cli.report import Report

    O = TypeVar("O", bound=Settings)  # noqa: E741
SHOWN = 12  # of a list in text; --json has it whole


@runtime_checkable
class Dumped(Protocol):
    """A result that says itself what is shown of it."""

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

    def all_notes(self) -> list[str]:
        """Return remarks that belong below the table."""
        ...


@runtime_checkable
class Judged(Protocol):
    """A result that is shown whole, and may still be the end of the command with an error."""

    def failure(self) -> "CdmError | None":
        """Return the error to end with."""
        ...


def answer(ctx: typer.Context, options: "O", run: "Callable[[O, Report], object]") -> None:
    """Run the job on its options and show what it returns, once for all processes.

    The options come first: what is wrong with flags is said before a job, and torch with it, is
    imported.
    """
    from cdm_cli.jobs.runtime.ranks import ranks

    report = report_of(ctx)
    defaults = _defaults(ctx)
    if defaults:
        report.say(f"{ctx.info_name}: by default {', '.join(defaults)}")
    result = run(options, report)
    if ranks().rank == 0:
        show(result, as_json=bool(ctx.params.get("json")))
    failure = result.failure() if isinstance(result, Judged) else None
    if failure is not None:
        raise failure


def _defaults(ctx: typer.Context) -> list[str]:
    """Return the file names that the user left to us, as `--out samples.h5`."""
    said: list[str] = []
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        value = ctx.params.get(param.name or "")
        paths = value if isinstance(value, (list, tuple)) else [value]
        if source and source.name == "DEFAULT" and isinstance(next(iter(paths), None), Path):
            flag = param.opts[0] if param.opts[0].startswith("-") else _argument(param)
            said.append(f"{flag} {' '.join(map(str, paths))}")
    return said


def _argument(param: Any) -> str:
    return str(param.metavar or param.opts[0].upper()).removesuffix("...")


def show(result: object, *, as_json: bool) -> None:
    """Print a result: one JSON object, or text."""
    if as_json:
        typer.echo(json.dumps(plain(result), allow_nan=False))
        return
    for line in text(result):
        typer.echo(printable(line))


def plain(value: object) -> Any:
    """Return a result as what JSON knows; paths become text, NaN and infinity null."""
    if isinstance(value, Table):
        return plain(value.to_json())
    if _members(value) is not None:
        return {name: plain(item) for name, item in (_members(value) or {}).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _members(value: object) -> dict[str, Any] | None:
    """Return the fields of a mapping, dataclass, settings model or Dumped, or None for others."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    names = getattr(type(value), "model_fields", None)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    return value.model_dump() if isinstance(value, Dumped) else None


def text(result: object) -> list[str]:
    """Return a result as lines of text: scalars first, then tables under their names."""
    if isinstance(result, Table):
        return [*aligned(result.header(), result.lines()), *result.all_notes()]
    unshown = getattr(result, "unshown", ())  # in --json alone
    values = {name: item for name, item in (_members(result) or {}).items() if name not in unshown}
    tables = {name: value for name, value in values.items() if _is_table(value)}
    scalars = _flat({name: plain(value) for name, value in values.items() if name not in tables})
    width = max((len(name) for name in scalars), default=0)
    lines = [f"{name:{width}}  {word(value)}".rstrip() for name, value in scalars.items()]
    for name, value in tables.items():
        lines += ["", f"{name.replace('_', ' ')}:"]
        lines += text(value) if isinstance(value, Table) else table(plain(value))
    return lines if scalars else lines[1:]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, their names joined: `plan training steps`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        spelled = f"{prefix}{name}".replace("_", " ")
        flat |= _flat(value, f"{spelled} ") if isinstance(value, dict) else {spelled: value}
    return flat


def _is_table(value: object) -> bool:
    if isinstance(value, Table):
        return True
    rows = value if isinstance(value, (list, tuple)) else ()
    return bool(rows) and all(_members(row) is not None for row in rows)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as aligned columns under their names; what holds lists is left to --json."""
    names = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if not any(_holds_lists(row.get(name)) for row in rows)
    ]
    return aligned(names, [[word(row.get(name)) for name in names] for row in rows])


def _holds_lists(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(item, list) for item in value.values())


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return columns of equal width; those that hold numbers alone stand to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(map(_is_number, column[1:])) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [header, *rows]
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def word(value: object) -> str:
    """Return a plain value in few characters: four digits of a float, a list's first words."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {word(item)}" for key, item in value.items())
    if isinstance(value, list):
        more = [f"… ({len(value)} in all)"] if len(value) > SHOWN else []
        return ", ".join([*map(word, value[:SHOWN]), *more]) or "none"
    return "" if value is None else str(value)
