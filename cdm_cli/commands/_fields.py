"""From parsed flags to the options of a job."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import typer

from cdm_cli.errors import UsageError
from cdm_cli.options.flag import list_flags
from cdm_cli.sentences import find_fault_in

O = TypeVar("O")  # noqa: E741
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)  # a Path keeps one
TEXTS = {"TEXT", "LIST", "NAME=LIST", "FIELD=VALUE", "I/N"}  # metavars of what may hold anything


def fill_options(options: type[O], ctx: typer.Context) -> O:
    """Return the options of a job, built from parsed flags and checked as their fields say.

    A flag that was not typed takes the default of its field. Raises UsageError naming the flag.
    """
    from pydantic import TypeAdapter, ValidationError

    check_files(ctx)
    try:
        return TypeAdapter(options).validate_python(_collect_values(options, ctx))
    except ValidationError as error:
        fault = find_fault_in(error)
        words = [_find_flag(ctx, fault.parts), _show_value(fault.value)]
        what = f"{' '.join(filter(None, words))}: {fault.sentence}"
        raise UsageError(what, next=f"{ctx.command_path} --help") from None


def check_files(ctx: typer.Context) -> None:
    """Raise UsageError naming the flag of an address, or of an output that is a stream.

    Neither is a file of this machine.
    """
    texts = {param.name for param in ctx.command.params if param.metavar in TEXTS}
    for name, value in ctx.params.items():
        for word in value if isinstance(value, (list, tuple)) else [value]:
            address = ADDRESS.match(str(word)) if isinstance(word, Path | str) else None
            flag = _find_flag(ctx, (name,))
            if address and name not in texts and not Path(address[1]).exists():
                there = word if isinstance(word, str) else _find_address(address)
                raise UsageError(
                    f"{flag} {there}: an address; cdm reads and writes files of this machine alone",
                    next="copy it here (curl -LO, rclone, …), then give the name of the file",
                )
            if name == "out" and word == Path("-"):
                raise UsageError(
                    f"{flag} -: cdm reads and writes files that have names, no streams",
                    next=f"{flag} with the name of a file",
                )


def _find_address(seen: re.Match[str]) -> str:
    """Return an address as it was typed; where that is not found, no more than its host.

    A Path keeps one slash of several.
    """
    words = [part for word in sys.argv[1:] for part in (word, word.partition("=")[2])]
    host = f"{seen[1]}//{seen[2].partition('/')[0]}"
    return next((word for word in words if str(Path(word)) == seen[0]), f"{host}/…")


def _find_flag(ctx: typer.Context, loc: tuple[int | str, ...]) -> str:
    """Return how the user typed the field at loc: `--keep-s`, or `LOWRES` for an argument."""
    names = {param.name: param for param in ctx.command.params}
    for part in reversed(loc):
        if part in names:
            param = names[str(part)]
            named = param.opts[0].startswith("-")
            return param.opts[0] if named else str(param.metavar or param.opts[0].upper())
    return "options"


def _show_value(value: object) -> str:
    return "" if isinstance(value, dict) else str(value)


def _collect_values(options: type, ctx: typer.Context) -> dict[str, Any]:
    """Return what was typed where it stands in the options; -q and its like stand before all."""
    everywhere = ctx.find_root().params
    own = {field.name for field in fields(options)}
    values = {name: value for name, value in everywhere.items() if name in own}
    for item in list_flags(options):
        value = ctx.params.get(item.name)
        if value not in (None, [], ()):
            *groups, name = item.path
            place = values
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = _split(value) if item.listed else value
    return values


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))
