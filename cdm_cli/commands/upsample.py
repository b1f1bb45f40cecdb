"""`cdm upsample`: a store to the next resolution, with one stage of the cascade."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.names import LOWRES, SAMPLES


def upsample(
    ctx: typer.Context,
    lowres: flag.LowRes = Path(LOWRES),
    model: flag.Model = None,
    s: flag.S_ = None,
    augment: flag.AugmentKind = None,
    keep_s: flag.KeepS = None,
    split: flag.Split = None,
    num: flag.Num = None,
    out: flag.Out = Path(SAMPLES),
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
    """Upsample every image of a store, given z_s.

    Example: cdm upsample lowres.h5 --model sr --s 501 -o samples.h5
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options import UpsampleOptions

    options = filled(UpsampleOptions, ctx)
    from cdm_cli.jobs.sampling.upsample import plan, run

    answer(ctx, options, plan if dry_run else run)
