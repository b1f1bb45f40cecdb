"""`cdm import`: weights that others trained become a stage, images of others a store."""

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own


def import_(
    ctx: typer.Context,
    src: own.Imported,
    out: own.ImportOut,
    flags: own.Flags = None,
    origin: own.OriginName = None,
    from_pickle: own.FromPickle = False,
    classes: own.ClassNames = None,
    labels: own.ImportLabels = None,
    follow_links: own.FollowLinks = False,
    json: flag.Json = False,
) -> None:
    """Make a stage of an openai checkpoint, or a store of images.

    Example: cdm import 64x64_diffusion.pt --from-pickle -o runs/base
    Example: cdm import samples.npz -o samples.h5
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import ImportOptions

    options = filled(ImportOptions, ctx)
    from cdm_cli.jobs.exchange.import_any import run

    answer(ctx, options, run)
