"""`cdm grid`: images of a store as one picture."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import GRID, SAMPLES


def grid(
    ctx: typer.Context,
    store: own.GridStore = Path(SAMPLES),
    out: flag.Out = Path(GRID),
    split: flag.Split = None,
    resolution: flag.Resolution = None,
    num: own.GridNum = None,
    per_class: own.PerClass = None,
    columns: own.Columns = None,
    scale: own.Scale = None,
    json: flag.Json = False,
) -> None:
    """Lay the images of a store out as one PNG.

    Example: cdm grid samples.h5 -o grid.png --per-class 8
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import GridOptions

    options = filled(GridOptions, ctx)
    from cdm_cli.jobs.pictures.grid import run

    answer(ctx, options, run)
