"""`cdm merge`: stores that several hosts made become one."""

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own


def merge(
    ctx: typer.Context,
    parts: own.Parts,
    out: flag.Out,
    json: flag.Json = False,
) -> None:
    """Join stores that were made with --part.

    Example: cdm merge part1.h5 part2.h5 part3.h5 -o samples.h5
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import MergeOptions

    options = filled(MergeOptions, ctx)
    from cdm_cli.jobs.exchange.merge import run

    answer(ctx, options, run)
