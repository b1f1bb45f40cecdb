"""`cdm verify`: is every byte what it was when it was written."""

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own


def verify(
    ctx: typer.Context,
    path: own.Verified,
    replay: own.Replay = None,
    model: own.ReplayModel = None,
    lowres: own.ReplayLowRes = None,
    seed: own.ReplaySeed = 0,
    device: flag.DeviceKind = "auto",
    json: flag.Json = False,
) -> None:
    """Check every byte of a store or a stage.

    Example: cdm verify samples.h5 --replay 4
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_files import VerifyOptions

    options = filled(VerifyOptions, ctx)
    from cdm_cli.jobs.checking.verify import run

    answer(ctx, options, run)
