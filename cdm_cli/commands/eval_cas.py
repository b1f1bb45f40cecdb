"""`cdm eval cas`: how well a classifier does that was trained on samples alone."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import CAS, DATA, SAMPLES


def eval_cas(
    ctx: typer.Context,
    store: own.Samples = Path(SAMPLES),
    ref: flag.Ref = Path(DATA),
    split: own.CasSplit = None,
    resolution: flag.Resolution = None,
    num: flag.Num = None,
    net: own.Net = "resnet50",
    epochs: own.Epochs = 90,
    steps: own.CasSteps = None,
    batch_size: own.CasBatch = 256,
    lr: own.Rate = None,
    label_smoothing: own.Smoothing = 0.1,
    seed: own.CasSeed = 0,
    out: flag.Out = Path(CAS),
    device: flag.DeviceKind = "auto",
    precision: flag.PrecisionKind = "auto",
    gpus: flag.Gpus = None,
    json: flag.Json = False,
    dry_run: flag.DryRun = False,
) -> None:
    """Train a classifier on samples, and test it on real images.

    Example: cdm eval cas samples.h5 --ref data.h5 --gpus 8
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer
    from cdm_cli.options_eval import CasOptions

    options = filled(CasOptions, ctx)
    from cdm_cli.jobs.cas.cas import plan, run

    answer(ctx, options, plan if dry_run else run)
