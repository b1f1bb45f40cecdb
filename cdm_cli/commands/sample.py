"""`cdm sample`: low-resolution images from the base stage of a cascade."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import LOWRES


def sample(
    ctx: typer.Context,
    stage: own.StageName = "base",
    classes: own.Classes = None,
    num: own.SampleNum = None,
    per_class: own.PerClass = None,
    keep_s: flag.KeepS = None,
    out: flag.Out = Path(LOWRES),
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
    part: flag.Part = None,
    json: flag.Json = False,
    dry_run: flag.DryRun = False,
) -> None:
    """Draw class-balanced images from a base stage.

    Example: cdm sample base --classes 0-9 --num 10000 --keep-s 251,501
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import SampleOptions

    options = filled(SampleOptions, ctx)
    from cdm_cli.jobs.sampling.sample import plan, run

    answer(ctx, options, plan if dry_run else run)
