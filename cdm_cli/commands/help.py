"""`cdm help`: what `--help` shows, for who types it as a word."""

from typing import Annotated, Any

import typer

from cdm_cli.errors import UsageError
from cdm_cli.sentences import suggest_near

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND", help="A command, as train, or eval cas.", show_default=False),
]


def show_help(ctx: typer.Context, command: Words = None) -> None:
    """Show what a command does, and every flag of it.

    \b
    Example: cdm help
    Example: cdm help eval cas
    """
    shown = ctx.find_root()
    group: Any = shown.command
    if name := " ".join(command or []):
        if name not in group.commands:
            listed = f"COMMAND {name!r}: there is no such command"
            raise UsageError(suggest_near(listed, name, group.commands), next="cdm help")
        inner = group.commands[name]
        shown = inner.make_context(name, [], parent=shown, resilient_parsing=True)
    typer.echo(shown.get_help())
