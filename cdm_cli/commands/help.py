"""`cdm help`: what `--help` shows, for who types it as a word."""

from typing import Annotated, Any

import typer

from cdm_cli.errors import UsageError
from cdm_cli.sentences import with_near

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[COMMAND]", help="A command, as train, or eval cas.", show_default=False
    ),
]


def show_help(ctx: typer.Context, command: Words = None) -> None:
    """Show what a command does, and every flag of it.

    \b
    Example: cdm help
    Example: cdm help eval cas
    """
    root = ctx.find_root()
    name = " ".join(command or [])
    typer.echo(_command(root, name).get_help(root) if not name else _help_of(root, name))


def _command(root: Any, name: str) -> Any:
    group: Any = root.command
    if not name:
        return group
    if name not in group.commands:
        listed = f"COMMAND {name!r}: there is no such command"
        raise UsageError(with_near(listed, name, group.commands), next="cdm help")
    return group.commands[name]


def _help_of(root: Any, name: str) -> str:
    command = _command(root, name)
    inner = command.make_context(name, [], parent=root, resilient_parsing=True)
    return str(command.get_help(inner))
