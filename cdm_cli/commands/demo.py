"""`cdm demo`: the whole cascade on images that it draws itself."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DEMO


def demo(
    ctx: typer.Context,
    directory: own.Directory = Path(DEMO),
    seed: flag.Seed = 0,
    json: flag.Json = False,
) -> None:
    """Run the whole cascade on images drawn on the spot.

    Example: cdm demo
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import DemoOptions

    options = filled(DemoOptions, ctx)
    from cdm_cli.jobs.demo.demo import run

    answer(ctx, options, run)
