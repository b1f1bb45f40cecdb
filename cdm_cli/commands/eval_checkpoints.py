"""`cdm eval checkpoints`: how good each saved state of a stage is."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import CURVE, DATA


def eval_checkpoints(
    ctx: typer.Context,
    stage: own.Judged = "base",
    weights: own.Checkpoints = "all",
    s: flag.S_ = None,
    num: own.JudgedNum = 10_000,
    out: flag.Out = Path(CURVE),
    features: flag.Features = "inception",
    mode: flag.Mode = "clean",
    ref: flag.Ref = Path(DATA),
    sampler: flag.SamplerKind = None,
    steps: flag.Steps = None,
    variance: flag.VarianceKind = None,
    schedule: flag.ScheduleFile = None,
    restart_from: flag.RestartFrom = None,
    clip: flag.Clip = True,
    seed: flag.Seed = 0,
    device: flag.DeviceKind = "auto",
    batch_size: flag.BatchSize = None,
    precision: flag.PrecisionKind = "auto",
    compile: flag.Compile = None,
    gpus: flag.Gpus = None,
    json: flag.Json = False,
    dry_run: flag.DryRun = False,
) -> None:
    """Judge the saved checkpoints of a stage by FID.

    Example: cdm eval checkpoints base --num 2000 --features features
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_eval import CurveOptions

    options = filled(CurveOptions, ctx)
    from cdm_cli.jobs.curve.curve import plan, run

    answer(ctx, options, plan if dry_run else run)
