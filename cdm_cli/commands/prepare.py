"""`cdm prepare`: images of any common layout become one store, every resolution at once."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA


def prepare(
    ctx: typer.Context,
    src: own.Src,
    val: own.Val = None,
    labels: own.Labels = None,
    val_labels: own.ValLabels = None,
    follow_links: own.FollowLinks = False,
    out: flag.Out = Path(DATA),
    resolutions: own.Resolutions = None,
    crop: own.CropKind = "biggan",
    channels: own.Channels = None,
    draft: own.Draft = False,
    strict: own.Strict = False,
    workers: own.Workers = None,
    json: flag.Json = False,
) -> None:
    """Turn images into a store for training and judging.

    Example: cdm prepare train.zip --val test.zip --resolution 16 --resolution 32
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import PrepareOptions

    options = filled(PrepareOptions, ctx)
    from cdm_cli.jobs.prepare.prepare import run

    answer(ctx, options, run)
