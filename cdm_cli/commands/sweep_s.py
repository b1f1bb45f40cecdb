"""`cdm sweep-s`: which s gives the best samples (Table 3a of the paper)."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA, LOWRES, SWEEP


def sweep_s(
    ctx: typer.Context,
    lowres: flag.LowRes = Path(LOWRES),
    model: flag.Model = None,
    s: own.SweepS = None,
    augments: own.Augments = None,
    ground_truth: own.GroundTruth = False,
    num: flag.Num = None,
    out: flag.Out = Path(SWEEP),
    features: flag.Features = "inception",
    mode: flag.Mode = "clean",
    ref: flag.Ref = Path(DATA),
    sampler: flag.SamplerKind = None,
    steps: flag.Steps = None,
    variance: flag.VarianceKind = None,
    schedule: flag.ScheduleFile = None,
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
    """Find the best s: upsample with each and judge.

    Example: cdm sweep-s --s 0,251,501,1001 --num 2000 --features features
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import SweepOptions

    options = filled(SweepOptions, ctx)
    from cdm_cli.jobs.sweep.sweep import plan, run

    answer(ctx, options, plan if dry_run else run)
