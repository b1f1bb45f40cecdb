"""`cdm eval elbo`: bits per dimension of real images under a stage, or a cascade."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA


def eval_elbo(
    ctx: typer.Context,
    stages: own.Stages = None,
    ref: flag.Ref = Path(DATA),
    split: flag.Split = None,
    s: own.ElboS = None,
    num: own.ElboNum = None,
    terms: own.Terms = 64,
    steps: own.ElboSteps = None,
    variance: flag.VarianceKind = None,
    schedule: flag.ScheduleFile = None,
    clip: flag.Clip = True,
    weights: flag.Weights = "ema",
    seed: flag.Seed = 0,
    device: flag.DeviceKind = "auto",
    batch_size: flag.BatchSize = None,
    precision: flag.PrecisionKind = "auto",
    compile: flag.Compile = None,
    gpus: flag.Gpus = None,
    json: flag.Json = False,
    dry_run: flag.DryRun = False,
) -> None:
    """Bound the bits per dimension of real images.

    Example: cdm eval elbo base sr --s 501 --num 1000
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_eval import ElboOptions

    options = filled(ElboOptions, ctx)
    from cdm_cli.jobs.elbo.elbo import plan, run

    answer(ctx, options, plan if dry_run else run)
