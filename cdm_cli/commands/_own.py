"""The flags and arguments of one command alone, in the order of the commands."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cdm_cli.names import METRICS, CasNet, Crop, ExportFormat, Origin

# prepare
Src = Annotated[
    Path,
    typer.Argument(help="Image folder, .zip, .tar or .npz; a class is a first-level folder."),
]
Val = Annotated[
    Path | None, typer.Option("--val", metavar="SRC", help="Images of the validation part.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Classes: a .csv or dataset.json; or prefix, of names up to the first _; or folders.",
    ),
]
ValLabels = Annotated[
    Path | None, typer.Option("--val-labels", metavar="FILE", help="The same for --val.")
]
FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Follow symbolic links in a folder, also out of it."),
]
Resolutions = Annotated[
    list[int] | None,
    typer.Option("--resolution", metavar="N", help="Resolution to store; repeatable."),
]
CropKind = Annotated[
    Crop, typer.Option("--crop", help="Centre square, resized as BigGAN or as ADM does.")
]
Channels = Annotated[
    int | None,
    typer.Option("--channels", metavar="1-4", help="Channels to store [default: as found]."),
]
Draft = Annotated[
    bool,
    typer.Option(
        "--draft",
        help="Decode JPEGs smaller where 8 pixels are left for one: faster, about 0.5 of 255 off.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Processes [default: all cores].")
]

# train
Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", show_default=False, help="The stage, kept in runs/NAME/."),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="P", help="Where to start from; see --list-presets."),
]
ListPresets = Annotated[bool, typer.Option("--list-presets", help="Print every preset, and stop.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change a setting, as model.dropout=0.1; repeatable."
    ),
]
TrainSteps = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Steps in all [default: the preset's].")
]
TrainBatch = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", help="Images of a step [default: the preset's]."),
]
TrainSeed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of weights, data order and noise.")
]
TrainFlip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Mirror half of the images [default: the preset's, on]."),
]
Select = Annotated[
    str | None,
    typer.Option("--select", metavar="fid", help="Keep the weights with the best score."),
]
TrainFeatures = Annotated[
    str | None,
    typer.Option("--features", metavar="NAME", help="Who judges --select [default: inception]."),
]
SelectNum = Annotated[
    int, typer.Option("--select-num", metavar="N", help="Samples that --select judges.")
]
SelectEvery = Annotated[
    int, typer.Option("--select-every", metavar="N", help="Steps from one judgement to the next.")
]

# sample
StageName = Annotated[
    str, typer.Argument(metavar="NAME", help="Base stage: a name in runs/ or a directory.")
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="LIST",
        help="""Ids, ranges, names: 0-9,17,tench,'"2-4"' (quoted: a name) [default: all seen].""",
    ),
]
SampleNum = Annotated[
    int | None,
    typer.Option("--num", metavar="N", help="How many images [default: 10 of each class]."),
]
PerClass = Annotated[
    int | None, typer.Option("--per-class", metavar="N", help="Images of each class.")
]

# eval, sweep-s, tune-schedule
Metrics = Annotated[
    str, typer.Argument(metavar="METRIC", help=f"{', '.join(METRICS)}, all; or a list.")
]
Samples = Annotated[Path, typer.Argument(metavar="STORE", help="Store to judge.")]
Table = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="PATH", help="Also write the table as .json or .csv."),
]
Stages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STAGE",
        show_default=False,
        help="One stage, or those of a cascade from its base up [default: base].",
    ),
]
ElboS = Annotated[
    str | None,
    typer.Option("--s", metavar="LIST", help="One s for each super-resolution stage."),
]
ElboNum = Annotated[
    int | None, typer.Option("--num", metavar="N", help="How many images [default: 1000].")
]
Terms = Annotated[
    int, typer.Option("--terms", metavar="N", help="Times t that stand for all, 0: all of them.")
]
ElboSteps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="Steps of the bounded chain [default: all T]."),
]
Judged = Annotated[str, typer.Argument(metavar="NAME", help="A stage in runs/ or a directory.")]
Checkpoints = Annotated[
    str,
    typer.Option("--weights", metavar="LIST", help="all, or some of step-00001000,ema,best."),
]
JudgedNum = Annotated[
    int, typer.Option("--num", metavar="N", help="Samples that judge each checkpoint.")
]
CasSplit = Annotated[
    str | None,
    typer.Option("--split", metavar="train", help="Part of a prepared STORE [default: train]."),
]
Net = Annotated[CasNet, typer.Option("--net", help="Classifier to train; small is for a CPU.")]
Epochs = Annotated[
    float, typer.Option("--epochs", metavar="N", help="How often to see every sample.")
]
CasSteps = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Steps, instead of epochs.")
]
CasBatch = Annotated[
    int, typer.Option("--batch-size", metavar="N", help="Images of a step, over all GPUs.")
]
Rate = Annotated[
    float | None,
    typer.Option("--lr", metavar="X", help="Highest rate [default: 0.1 for each 256 images]."),
]
Smoothing = Annotated[
    float, typer.Option("--label-smoothing", metavar="X", help="Share of the label given to all.")
]
CasSeed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of weights, data order and crops.")
]
SweepS = Annotated[
    str | None,
    typer.Option("--s", metavar="LIST", help="Times to compare [default: 0 and six to 3/8 of T]."),
]
Augments = Annotated[
    list[str] | None,
    typer.Option(
        "--augment",
        metavar="KIND",
        help="truncated or non-truncated; repeatable [default: all the store gives].",
    ),
]
GroundTruth = Annotated[
    bool, typer.Option("--ground-truth", help="Also upsample the real images of --ref.")
]
StepCounts = Annotated[
    str, typer.Option("--steps", metavar="LIST", help="Step counts to search a schedule for.")
]
TuneNum = Annotated[int, typer.Option("--num", metavar="N", help="Images that judge a trial.")]
Trials = Annotated[int, typer.Option("--trials", metavar="N", help="Schedules to try per count.")]

# inspect, grid, demo
AnyFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A store, a stage directory or a checkpoint.")
]
GridStore = Annotated[Path, typer.Argument(metavar="STORE", help="Store to show.")]
GridNum = Annotated[
    int | None, typer.Option("--num", metavar="N", help="How many images, at most [default: 64].")
]
Columns = Annotated[
    int | None, typer.Option("--columns", metavar="N", help="Images in a row [default: square].")
]
Scale = Annotated[
    int | None,
    typer.Option("--scale", metavar="N", help="Pixels for one pixel [default: readable]."),
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where the demo works.")]
ShellName = Annotated[
    Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")
]

# verify, merge, export
Verified = Annotated[
    Path, typer.Argument(metavar="STORE|RUN", help="A store, or a stage: its name or directory.")
]
Replay = Annotated[
    int | None,
    typer.Option("--replay", metavar="K", help="Make K samples of a store again and compare."),
]
ReplayModel = Annotated[
    str | None,
    typer.Option("--model", metavar="STAGE", help="Stage to replay with [default: found]."),
]
ReplayLowRes = Annotated[
    Path | None,
    typer.Option("--lowres", metavar="STORE", help="Store that was upsampled [default: found]."),
]
ReplaySeed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Decides which samples are replayed.")
]
Parts = Annotated[
    list[Path], typer.Argument(metavar="PART...", help="Stores of the same command, in any order.")
]
ExportStore = Annotated[Path, typer.Argument(metavar="STORE", help="Store to export.")]
Format = Annotated[
    ExportFormat | None,
    typer.Option("--format", help="png, jpeg or npz [default: as --out ends, else png]."),
]

# import
Imported = Annotated[
    Path,
    typer.Argument(
        metavar="SRC", help="Checkpoint of openai's packages; or image folder, .zip, .tar, .npz."
    ),
]
ImportOut = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATH", help="runs/NAME for a stage, NAME.h5 for images."),
]
ImportLabels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Classes of images, as for `cdm prepare`."),
]
Flags = Annotated[
    list[str] | None,
    typer.Option(
        "--flags",
        metavar="TEXT",
        help="The flags that it was trained with, pasted [default: known by its name].",
    ),
]
OriginName = Annotated[
    Origin | None, typer.Option("--origin", help="Package that trained it [default: as found].")
]
FromPickle = Annotated[
    bool, typer.Option("--from-pickle", help="Read a .pt file, of tensors alone; runs no code.")
]
ClassNames = Annotated[
    Path | None,
    typer.Option("--classes", metavar="FILE", help="Names: a store, a stage, or a text of lines."),
]
