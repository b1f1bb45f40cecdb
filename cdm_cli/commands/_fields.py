"""From parsed flags to the options of a job.

A flag is the field of `cdm_cli.options` with dashes for underscores, so no command lists
its names twice.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import typer

if TYPE_CHECKING:
    from cdm_cli.config import Settings

    S = TypeVar("S", bound=Settings)


def filled(model: "type[S]", ctx: typer.Context) -> "S":
    """Build the options of a job from parsed flags; None, or no word of a list, is the default.

    Nested groups (sampling, compute, judge) take the flags of their own fields that no
    outer field has. Text for a field of several values is split at commas. Raises
    UsageError naming the flag.
    """
    from pydantic import ValidationError

    from cdm_cli.errors import UsageError

    try:
        return model.model_validate(_values(model, {**ctx.find_root().params, **ctx.params}))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        words = [_flag(ctx, first["loc"]), _shown(first["input"])]
        what = f"{' '.join(filter(None, words))}: {message}"
        raise UsageError(what, next=f"{ctx.command_path} --help") from None


def _flag(ctx: typer.Context, loc: tuple[int | str, ...]) -> str:
    """Return how the user typed the field at loc: `--keep-s`, or `LOWRES` for an argument."""
    names = {param.name: param for param in ctx.command.params}
    for part in reversed(loc):
        if part in names:
            param = names[str(part)]
            return param.opts[0] if param.opts[0].startswith("-") else param.opts[0].upper()
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
