"""What `cdm sample` and `cdm upsample` are asked, and how any command runs a reverse process."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, Lt

from cdm_cli.errors import UsageError
from cdm_cli.names import (
    DEVICE_ENV,
    LOWRES,
    MOST_BATCH,
    MOST_PROCESSES,
    MOST_SAMPLES,
    SAMPLES,
    Augment,
    Device,
    Precision,
    Sampler,
    Variance,
)
from cdm_cli.options.durations import make_duration_check
from cdm_cli.options.flag import OUTPUT, Check, Flag, Harmless, Identified
from cdm_cli.options.outputs import StoreOut

AnySeed = Annotated[int, Ge(0), Lt(2**63)]
Seed = Annotated[AnySeed, Flag("Seed of all noise.", "N")]
Num = Annotated[int | None, Ge(1), Flag("How many images [default: all].", "N")]
KeepS = Annotated[
    tuple[Annotated[int, Ge(0)], ...],
    Flag(
        "Also store z_s at these times, 251,501, for --augment truncated; changes no image.", "LIST"
    ),
]
Split = Annotated[str | None, Flag("Part of a prepared store [default: val].", "train|val")]
Resolution = Annotated[int | None, Ge(1), Flag("Resolution to take [default: the highest].", "N")]
PerClass = Annotated[int | None, Ge(1), Le(MOST_SAMPLES), Flag("Images of each class.", "N")]
LowRes = Annotated[Path, Flag("Store of low-resolution images.", "LOWRES", argument=True)]
Model = Annotated[
    str | None,
    Flag(
        "Super-resolution stage: a name in runs/ or a directory [default: the one that fits].",
        "STAGE",
    ),
]
S_HELP = "Time s of z_s: z_0 noised to it, or the state kept at it; 0: z_0 itself"
S = Annotated[int | None, Ge(0), Flag(f"{S_HELP}.", "S")]


def _check_part(part: str) -> str:
    """Take I/N with I in 1..N."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", part)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {part}: expected I/N with I in 1..N", next="--part 1/4")
    return part


Part = Annotated[
    str | None,
    Check(_check_part),
    Flag("Do the I-th of N equal parts; `cdm merge` joins them.", "I/N"),
]


@dataclass(frozen=True)
class Compute:
    """Where and how a network runs. batch_size None: chosen for the device."""

    device: Annotated[Device, Flag("Where the network runs.", env=DEVICE_ENV)] = "auto"
    batch_size: Annotated[
        int | None, Ge(1), Le(MOST_BATCH), Flag("Images at a time [default: what fits].", "N")
    ] = None
    precision: Annotated[Precision, Flag("Arithmetic of the network; auto: bf16 on CUDA.")] = "auto"
    compile: Annotated[
        bool | None,
        Flag("Compile the network [default: if long, on CUDA].", names=("--compile/--no-compile",)),
    ] = None
    gpus: Annotated[
        int | None, Ge(1), Le(MOST_PROCESSES), Flag("Run on N GPUs of this machine.", "N")
    ] = None
    stop_after: Annotated[
        str | None,
        Check(make_duration_check("--stop-after")),
        Flag("Stop after 11h50m, 45m, 90s, all saved; the same command continues.", "TIME"),
    ] = None


@dataclass(frozen=True)
class Sampling:
    """How the reverse process is run. steps None: the stage's own default; 0: all T."""

    sampler: Annotated[Sampler | None, Flag("Sampler [default: the stage's own].")] = None
    steps: Annotated[
        int | None,
        Ge(0),
        Flag(
            "Steps, 0 for all T [default: the stage's own, at least 250 with another --sampler].",
            "N",
        ),
    ] = None
    variance: Annotated[
        Variance | None, Flag("Variance of an ancestral step [default: the stage's own].")
    ] = None
    schedule: Annotated[
        Path | None,
        Flag("Noise schedule that tune-schedule wrote.", "FILE"),
        Identified("the times and the noise that the file tells"),
    ] = None
    restart_from: Annotated[
        int | None, Ge(1), Flag("Noise the result to this time and sample again.", "T")
    ] = None
    clip: Annotated[
        bool, Flag("Clip the predicted x_0 to [-1, 1] at each step.", names=("--clip/--no-clip",))
    ] = True
    weights: Annotated[
        str,
        Flag("ema, best, or a checkpoint: step-00001000.", "WHICH"),
        Identified("their digest, whatever they are called"),
    ] = "ema"
    seed: Seed = 0
    note: Annotated[
        str,
        Flag("Words to keep in what is written; `inspect` shows them.", "TEXT", group=OUTPUT),
        Harmless("words are no setting; a store keeps those that it was begun with"),
    ] = ""

    def __post_init__(self) -> None:
        """Raise UsageError for a variance beside a sampler that leaves no choice of it."""
        if self.variance and self.sampler not in (None, "ancestral"):
            raise UsageError(
                f"--variance {self.variance}: {self.sampler} leaves no choice of variance",
                next="--sampler ancestral",
            )


@dataclass(frozen=True)
class SampleOptions:
    """`cdm sample`. classes: "0-9,17,tench"; num samples in all, per_class of each, or like."""

    stage: Annotated[
        str, Flag("Base stage: a name in runs/ or a directory.", "NAME", argument=True)
    ] = "base"
    classes: Annotated[
        str | None,
        Flag(
            """Ids, ranges, names: 0-9,17,tench,'"2-4"' (quoted: a name) [default: all seen].""",
            "LIST",
        ),
    ] = None
    num: Annotated[
        int | None,
        Ge(1),
        Le(MOST_SAMPLES),
        Flag("How many images [default: 10 of each class].", "N"),
    ] = None
    per_class: PerClass = None
    like: Annotated[
        Path | None,
        Flag("As many of each class as in this store's training images.", "STORE"),
    ] = None
    keep_s: KeepS = ()
    out: StoreOut = Path(LOWRES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: Part = None

    def __post_init__(self) -> None:
        """Raise UsageError for two numbers of samples."""
        if self.num is not None and self.per_class is not None:
            raise UsageError("--num and --per-class exclude each other", next="give one of them")
        if self.like is not None and self.per_class is not None:
            raise UsageError("--like and --per-class exclude each other", next="give one of them")


@dataclass(frozen=True)
class UpsampleOptions:
    """`cdm upsample`. model None: the only stage that fits.

    s: the time whose z_s conditions; None: what was applied, 0 for a stage without augmentation.
    augment None: what was applied, where s is None too, else non-truncated. keep_s: times of its
    own images, for a stage that starts from these.
    """

    lowres: LowRes = Path(LOWRES)
    model: Model = None
    s: Annotated[int | None, Ge(0), Flag(f"{S_HELP} [default: as applied].", "S")] = None
    augment: Annotated[
        Augment | None,
        Flag(
            "Origin of z_s: the store's own, or z_0 noised afresh [default: as applied, "
            "else non-truncated]."
        ),
    ] = None
    keep_s: KeepS = ()
    split: Split = None
    num: Num = None
    out: StoreOut = Path(SAMPLES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: Part = None
