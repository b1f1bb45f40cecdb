"""`cdm train`: one stage of a cascade, or a classifier, from a prepared store."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.commands import _own as own
from cdm_cli.names import DATA


def train(
    ctx: typer.Context,
    name: own.Name = None,
    preset: own.Preset = None,
    list_presets: own.ListPresets = False,
    data: flag.Data = Path(DATA),
    overrides: own.Set = None,
    steps: own.TrainSteps = None,
    batch_size: own.TrainBatch = None,
    seed: own.TrainSeed = None,
    flip: own.TrainFlip = None,
    select: own.Select = None,
    select_num: own.SelectNum = 10_000,
    select_every: own.SelectEvery = 5000,
    features: own.TrainFeatures = None,
    device: flag.DeviceKind = "auto",
    precision: flag.PrecisionKind = "auto",
    compile: flag.Compile = None,
    gpus: flag.Gpus = None,
    json: flag.Json = False,
    dry_run: flag.DryRun = False,
) -> None:
    """Train a stage; the same command again continues it.

    Example: cdm train base --preset cifar-base16 --steps 15000
    """
    from cdm_cli.commands._fields import filled
    from cdm_cli.commands._render import answer, show
    from cdm_cli.presets import asked, preset_rows

    if list_presets:
        return show({"presets": preset_rows()}, as_json=json)

    from cdm_cli.options import TrainOptions

    options = filled(TrainOptions, ctx)
    if options.preset is not None:
        asked(options.preset, options.overrides)
    from cdm_cli.jobs.training.train import plan, run

    answer(ctx, options, plan if dry_run else run)
