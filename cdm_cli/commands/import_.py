"""`cdm import`: weights that others trained become a stage."""

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own


def import_(
    ctx: typer.Context,
    checkpoint: own.Checkpoint,
    out: flag.Out,
    flags: own.Flags = None,
    origin: own.OriginName = None,
    from_pickle: own.FromPickle = False,
    classes: own.ClassNames = None,
    json: flag.Json = False,
) -> None:
    """Make a stage of an openai diffusion checkpoint.

    Example: cdm import 64x64_diffusion.pt --from-pickle -o runs/base
    """
    from cdm_cli.commands._render import answer
    from cdm_cli.jobs.import_openai import run
    from cdm_cli.options import ImportCheckpointOptions

    answer(ctx, ImportCheckpointOptions, run)
