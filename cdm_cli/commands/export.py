"""`cdm export`: the images of a store for every other program."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import SAMPLES


def export(
    ctx: typer.Context,
    out: flag.Out,
    store: own.ExportStore = Path(SAMPLES),
    format: own.Format = None,
    split: flag.Split = None,
    resolution: flag.Resolution = None,
    num: flag.Num = None,
    json: flag.Json = False,
) -> None:
    """Write the images of a store as files, or as one .npz.

    Example: cdm export samples.h5 -o samples.npz
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import ExportOptions

    options = filled(ExportOptions, ctx)
    from cdm_cli.jobs.exchange.export import run

    answer(ctx, options, run)
