"""The flags that commands share, each said once: a field of `cdm_cli.options` with dashes."""

from pathlib import Path
from typing import Annotated

import typer

from cdm_cli.names import (
    Augment,
    Device,
    InceptionMode,
    Precision,
    Sampler,
    Variance,
)

# Input and output
LowRes = Annotated[Path, typer.Argument(metavar="LOWRES", help="Store of low-resolution images.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="What to write.")]
Data = Annotated[Path, typer.Option("--data", metavar="PATH", help="Prepared store.")]
Split = Annotated[
    str | None,
    typer.Option("--split", metavar="train|val", help="Part of a prepared store [default: val]."),
]
Num = Annotated[
    int | None, typer.Option("--num", metavar="N", help="How many images [default: all].")
]
Resolution = Annotated[
    int | None,
    typer.Option("--resolution", metavar="N", help="Resolution to take [default: the highest]."),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part", metavar="I/N", help="Do the I-th of N equal parts; `cdm merge` joins them."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and its cost; compute and write nothing.")
]

# Which stage, and how z_s is made
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="STAGE",
        help="Super-resolution stage: a name in runs/ or a directory [default: the one that fits].",
    ),
]
Weights = Annotated[
    str,
    typer.Option("--weights", metavar="WHICH", help="ema, best, or a checkpoint: step-00001000."),
]
S_ = Annotated[
    int | None,
    typer.Option("--s", metavar="S", help="Time at which z_0 is noised, 0 for not at all."),
]
AugmentKind = Annotated[
    Augment | None,
    typer.Option("--augment", help="Origin of z_s: the store's own, or z_0 noised afresh."),
]
KeepS = Annotated[
    str | None,
    typer.Option(
        "--keep-s",
        metavar="LIST",
        help="Also store z_s at these times, 251,501, for --augment truncated; changes no image.",
    ),
]

# The reverse process
SamplerKind = Annotated[
    Sampler | None, typer.Option("--sampler", help="Sampler [default: the stage's own].")
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        help="Steps, 0 for all T [default: the stage's own, at least 250 with another --sampler].",
    ),
]
VarianceKind = Annotated[
    Variance | None,
    typer.Option("--variance", help="Variance of an ancestral step [default: the stage's own]."),
]
ScheduleFile = Annotated[
    Path | None,
    typer.Option("--schedule", metavar="FILE", help="Noise schedule that tune-schedule wrote."),
]
RestartFrom = Annotated[
    int | None,
    typer.Option(
        "--restart-from", metavar="T", help="Noise the result to this time and sample again."
    ),
]
Clip = Annotated[
    bool, typer.Option("--clip/--no-clip", help="Clip the predicted x_0 to [-1, 1] at each step.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all noise.")]

# The machine
DeviceKind = Annotated[Device, typer.Option("--device", help="Where the network runs.")]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", help="Images at a time [default: what fits]."),
]
PrecisionKind = Annotated[
    Precision, typer.Option("--precision", help="Arithmetic of the network; auto: bf16 on CUDA.")
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Compile the network [default: if long, on CUDA]."),
]
Gpus = Annotated[
    int | None, typer.Option("--gpus", metavar="N", help="Run on N GPUs of this machine.")
]

# The judge
Features = Annotated[
    str,
    typer.Option("--features", metavar="NAME", help="inception, or a classifier stage in runs/."),
]
Mode = Annotated[
    InceptionMode, typer.Option("--mode", help="Resizing and weights of the Inception network.")
]
Ref = Annotated[
    Path, typer.Option("--ref", metavar="PATH", help="Prepared store with the real images.")
]
