"""`cdm inspect`: what a file holds and where it came from."""

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own


def inspect(
    ctx: typer.Context,
    path: own.AnyFile,
    json: flag.Json = False,
) -> None:
    """Show what a file holds and where it came from.

    Example: cdm inspect samples.h5
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import InspectOptions

    options = filled(InspectOptions, ctx)
    from cdm_cli.jobs.checking.inspect import run

    answer(ctx, options, run)
