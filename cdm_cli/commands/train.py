"""`cdm train`: one stage of a cascade, or a classifier, from a prepared store."""

from pathlib import Path

import typer

from cdm_cli.commands import _options as flag
from cdm_cli.names import DATA


def train(
    ctx: typer.Context,
    name: flag.Name = None,
    preset: flag.Preset = None,
    list_presets: flag.ListPresets = False,
    data: flag.Data = Path(DATA),
    overrides: flag.Set = None,
    steps: flag.TrainSteps = None,
    batch_size: flag.TrainBatch = None,
    seed: flag.TrainSeed = None,
    select: flag.Select = None,
    select_num: flag.SelectNum = 10_000,
    select_every: flag.SelectEvery = 5000,
    features: flag.TrainFeatures = None,
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
    from cdm_cli.commands._render import answer, show
    from cdm_cli.presets import preset_rows

    if list_presets:
        return show({"presets": preset_rows()}, as_json=json)

    from cdm_cli.jobs.train import plan, run
    from cdm_cli.options import TrainOptions

    answer(ctx, TrainOptions, plan if dry_run else run)
