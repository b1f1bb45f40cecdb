"""`cdm eval`: how good are the samples, against real images."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA, SAMPLES


def evaluate(
    ctx: typer.Context,
    metrics: own.Metrics,
    store: own.Samples = Path(SAMPLES),
    split: flag.Split = None,
    resolution: flag.Resolution = None,
    num: flag.Num = None,
    out: own.Table = None,
    features: flag.Features = "inception",
    mode: flag.Mode = "clean",
    ref: flag.Ref = Path(DATA),
    seed: flag.Seed = 0,
    device: flag.DeviceKind = "auto",
    batch_size: flag.BatchSize = None,
    gpus: flag.Gpus = None,
    json: flag.Json = False,
) -> None:
    """Judge samples against real images.

    Example: cdm eval fid samples.h5 --ref data.h5 --features features --json
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_eval import EvalOptions

    options = filled(EvalOptions, ctx)
    from cdm_cli.jobs.judging.evaluate import run

    answer(ctx, options, run)
