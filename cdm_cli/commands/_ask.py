"""How a command asks before it removes something: on a terminal, or not at all."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from cdm_cli.commands._render import write_lines
from cdm_cli.commands._report import choose_report
from cdm_cli.errors import UsageError, make_printable

if TYPE_CHECKING:
    from cdm_cli.report import Report


def ask_what_to_remove(
    ctx: typer.Context, options: Any, plan: "Callable[[Any, Report], Any]"
) -> Any:
    """Ask on the terminal; return the options with what the person agrees to remove.

    With --yes nothing is asked. Raises UsageError where there is something to remove, and no
    terminal to ask on.
    """
    if options.yes:
        return options
    found = plan(options, choose_report(ctx))
    question = found.make_question()
    if not question:
        return replace(options, agreed=())
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{question} There is no terminal to ask on",
            kept="nothing was removed",
            next=f"{ctx.command_path} --dry-run, which shows them, or --yes, which removes them",
        )
    for line in write_lines(found, whole=False):
        typer.echo(make_printable(line), err=True)
    names = tuple(row["path"] for row in found.remove) if typer.confirm(question, err=True) else ()
    return replace(options, agreed=names)
