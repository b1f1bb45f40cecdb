"""From parsed flags to the options of a job.

A flag is the field of `cdm_cli.options` with dashes for underscores, so no command lists
its names twice.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import typer

from cdm_cli.errors import UsageError
from cdm_cli.sentences import fault_of

if TYPE_CHECKING:
    from cdm_cli.config import Settings

    S = TypeVar("S", bound=Settings)

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)  # a Path keeps one
PASTED = {"flags", "overrides", "classes", "part"}  # text that may hold anything


def filled(model: "type[S]", ctx: typer.Context) -> "S":
    """Build the options of a job from parsed flags; None, or no word of a list, is the default.

    Nested groups (sampling, compute, judge) take the flags of their own fields that no
    outer field has. Text for a field of several values is split at commas. Raises
    UsageError naming the flag.
    """
    from pydantic import ValidationError

    check_files(ctx)
    try:
        return model.model_validate(_values(model, {**ctx.find_root().params, **ctx.params}))
    except ValidationError as error:
        fault = fault_of(error)
        words = [_flag(ctx, fault.parts), _shown(fault.value)]
        what = f"{' '.join(filter(None, words))}: {fault.sentence}"
        raise UsageError(what, next=f"{ctx.command_path} --help") from None


def check_files(ctx: typer.Context) -> None:
    """Refuse what names no file of this machine: an address, or an output that is a stream.

    Raises UsageError naming the flag.
    """
    for name, value in ctx.params.items():
        for word in value if isinstance(value, (list, tuple)) else [value]:
            address = ADDRESS.match(str(word)) if isinstance(word, Path | str) else None
            flag = _flag(ctx, (name,))
            if address and name not in PASTED and not Path(address[1]).exists():
                there = f"{address[1]}//{address[2]}"
                raise UsageError(
                    f"{flag} {there}: an address; cdm reads and writes files of this machine alone",
                    next="copy it here (curl -LO, rclone, …), then give the name of the file",
                )
            if name == "out" and word == Path("-"):
                raise UsageError(
                    f"{flag} -: cdm reads and writes files that have names, no streams",
                    next=f"{flag} with the name of a file",
                )


def _flag(ctx: typer.Context, loc: tuple[int | str, ...]) -> str:
    """Return how the user typed the field at loc: `--keep-s`, or `LOWRES` for an argument."""
    names = {param.name: param for param in ctx.command.params}
    for part in reversed(loc):
        if part in names:
            param = names[str(part)]
            named = param.opts[0].startswith("-")
            return param.opts[0] if named else str(param.metavar or param.opts[0].upper())
    return "options"


def _shown(value: object) -> str:
    return "" if isinstance(value, dict) else str(value)


def _values(model: "type[Settings]", params: Mapping[str, Any]) -> dict[str, Any]:
    from cdm_cli.config import Settings

    values: dict[str, Any] = {}
    inner = {name: value for name, value in params.items() if name not in model.model_fields}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            values[name] = _values(kind, inner)
        elif params.get(name) not in (None, [], ()):
            values[name] = _listed(params[name]) if get_origin(kind) is tuple else params[name]
    return values


def _listed(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
