"""What commands were asked to do: one frozen model per job, and how a job reports back."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from cdm_cli.config import Settings
from cdm_cli.errors import UsageError
from cdm_cli.names import (
    DATA,
    DEMO,
    LEAST_JUDGED,
    LOWRES,
    MOST_BATCH,
    MOST_JUDGED,
    MOST_PROCESSES,
    MOST_SAMPLES,
    MOST_STEPS,
    RUNS,
    SAMPLES,
    SCHEDULE,
    SWEEP,
    Augment,
    Crop,
    Device,
    InceptionMode,
    Precision,
    Sampler,
    Variance,
)
from cdm_cli.outputs import FolderOut, ScheduleOut, StoreOut


class Report(Protocol):
    """What a job may tell the person who waits; nothing below the commands prints."""

    def say(self, line: str) -> None:
        """Tell one line (stderr)."""
        ...

    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Callable[[int, str], None]]:
        """Open a progress bar; call the result with (count done since last call, note).

        total counts the whole, and done what of it an earlier run has done. A bar that is opened
        while another one is shown is part of what that one counts.
        """
        ...


class Compute(Settings):
    """Where and how a network runs. batch_size None: chosen for the device."""

    device: Device = "auto"
    batch_size: int | None = Field(default=None, ge=1, le=MOST_BATCH)
    precision: Precision = "auto"
    compile: bool | None = None
    gpus: int | None = Field(default=None, ge=1, le=MOST_PROCESSES)


def _plain(name: str) -> str:
    """Take a name of a stage to be trained: one plain word, it names a directory in runs/."""
    if not name or name in (".", "..") or name.startswith("-") or {"/", "\0"} & set(name):
        raise UsageError(
            f"NAME {name!r}: expected one word without a slash, it names a directory in {RUNS}/",
            next="cdm train base --preset …",
        )
    return name


def _selectable(metric: str) -> str:
    if metric not in SELECTABLE:
        raise UsageError(
            f"--select {metric}: stages are selected by {', '.join(SELECTABLE)}",
            next="--select fid",
        )
    return metric


def _share(part: str) -> str:
    """Take I/N with I in 1..N."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", part)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {part}: expected I/N with I in 1..N", next="--part 1/4")
    return part


SELECTABLE = ("fid",)
StageName = Annotated[str, AfterValidator(_plain)]
Selectable = Annotated[str, AfterValidator(_selectable)]
Part = Annotated[str, AfterValidator(_share)]


class PrepareOptions(Settings):
    """`cdm prepare`. labels, val_labels: a table, or one of `data.labels.RULES`."""

    src: Path
    val: Path | None = None
    labels: Path | None = None
    val_labels: Path | None = None
    follow_links: bool = False
    out: StoreOut = Path(DATA)
    resolutions: tuple[int, ...] = ()
    crop: Crop = "biggan"
    channels: int | None = Field(default=None, ge=1, le=4)
    draft: bool = False
    strict: bool = False
    workers: int | None = Field(default=None, ge=1, le=MOST_PROCESSES)


class TrainOptions(Settings):
    """`cdm train`. steps, batch_size, seed and flip are short for --set training.…"""

    name: StageName
    preset: str | None = None
    data: Path = Path(DATA)
    runs: Path = Path(RUNS)
    overrides: tuple[str, ...] = ()
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    batch_size: int | None = Field(default=None, ge=1, le=MOST_BATCH)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    flip: bool | None = None
    compute: Compute = Compute()
    select: Selectable | None = None
    select_num: int = Field(default=10_000, ge=2, le=MOST_JUDGED)
    select_every: int = Field(default=5000, ge=1, le=MOST_STEPS)
    features: str | None = None


class Sampling(Settings):
    """How the reverse process is run. steps None: the stage's own default; 0: all T."""

    sampler: Sampler | None = None
    steps: int | None = Field(default=None, ge=0)
    variance: Variance | None = None
    schedule: Path | None = None
    restart_from: int | None = Field(default=None, ge=1)
    clip: bool = True
    weights: str = "ema"
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _leaves_a_choice(self) -> Self:
        if self.variance and self.sampler not in (None, "ancestral"):
            raise UsageError(
                f"--variance {self.variance}: {self.sampler} leaves no choice of variance",
                next="--sampler ancestral",
            )
        return self


class SampleOptions(Settings):
    """`cdm sample`. classes: "0-9,17,tench"; num samples in all, or per_class of each."""

    stage: str = "base"
    classes: str | None = None
    num: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    per_class: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    keep_s: tuple[int, ...] = ()
    out: StoreOut = Path(LOWRES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: Part | None = None

    @model_validator(mode="after")
    def _counts_once(self) -> Self:
        if self.num is not None and self.per_class is not None:
            raise UsageError("--num and --per-class exclude each other", next="give one of them")
        return self


class UpsampleOptions(Settings):
    """`cdm upsample`. augment None: non-truncated. model None: the only stage that fits.

    keep_s: times of its own images, for a stage that starts from these.
    """

    lowres: Path = Path(LOWRES)
    model: str | None = None
    s: int | None = Field(default=None, ge=0)
    augment: Augment | None = None
    keep_s: tuple[int, ...] = ()
    split: str | None = None
    num: int | None = Field(default=None, ge=1)
    out: StoreOut = Path(SAMPLES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: Part | None = None


class FeatureOptions(Settings):
    """Which extractor judges: "inception", or a classifier stage by name or path."""

    features: str = "inception"
    mode: InceptionMode = "clean"
    ref: Path = Path(DATA)
    compute: Compute = Compute()


class SweepOptions(Settings):
    """`cdm sweep-s`. augments empty: every kind that the store can give."""

    lowres: Path = Path(LOWRES)
    model: str | None = None
    s: tuple[int, ...] = ()
    augments: tuple[Augment, ...] = ()
    ground_truth: bool = False
    num: int | None = Field(default=None, ge=LEAST_JUDGED)
    out: FolderOut = Path(SWEEP)
    sampling: Sampling = Sampling()
    judge: FeatureOptions = FeatureOptions()


class TuneOptions(Settings):
    """`cdm tune-schedule`. One search for each number of steps."""

    lowres: Path = Path(LOWRES)
    model: str | None = None
    steps: tuple[int, ...] = (4, 16, 64)
    s: int | None = Field(default=None, ge=0)
    num: int = Field(default=1000, ge=LEAST_JUDGED)
    trials: int = Field(default=16, ge=1)
    out: ScheduleOut = Path(SCHEDULE)
    sampling: Sampling = Sampling()
    judge: FeatureOptions = FeatureOptions()

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        if self.sampling.schedule:
            raise UsageError(
                f"--schedule {self.sampling.schedule}: a search makes schedules, it takes none",
                next="leave it out",
            )
        if self.sampling.restart_from:
            raise UsageError(
                "--restart-from names a time of training, which a searched schedule does not visit",
                next="leave it out",
            )
        return self


class DemoOptions(Settings):
    """`cdm demo`. A directory of its own, so that nothing of the user's is in the way."""

    directory: Path = Path(DEMO)
    seed: int = Field(default=0, ge=0, lt=2**63)
    quiet: bool = False
