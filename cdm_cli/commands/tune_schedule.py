"""`cdm tune-schedule`: the best noise schedule for few steps (Section 4.4)."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA, LOWRES, SCHEDULE


def tune_schedule(
    ctx: typer.Context,
    lowres: flag.LowRes = Path(LOWRES),
    model: flag.Model = None,
    steps: own.StepCounts = "4,16,64",
    s: flag.S_ = None,
    num: own.TuneNum = 1000,
    trials: own.Trials = 16,
    out: flag.Out = Path(SCHEDULE),
    features: flag.Features = "inception",
    mode: flag.Mode = "clean",
    ref: flag.Ref = Path(DATA),
    sampler: flag.SamplerKind = None,
    variance: flag.VarianceKind = None,
    restart_from: flag.RestartFrom = None,
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
    """Search noise schedules for few sampling steps.

    Example: cdm tune-schedule --model sr --steps 4,16,64 --features features
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import TuneOptions

    options = filled(TuneOptions, ctx)
    from cdm_cli.jobs.tune.tune import plan, run

    answer(ctx, options, plan if dry_run else run)
