"""What commands were asked to do: one frozen model per job, and how a job reports back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pydantic import Field

from cdm_cli.config import Settings
from cdm_cli.names import (
    DATA,
    DEMO,
    LOWRES,
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
    batch_size: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    compile: bool | None = None
    gpus: int | None = Field(default=None, ge=1)


class PrepareOptions(Settings):
    """`cdm prepare`. labels, val_labels: a table, or one of `data.labels.RULES`."""

    src: Path
    val: Path | None = None
    labels: Path | None = None
    val_labels: Path | None = None
    follow_links: bool = False
    out: Path = Path(DATA)
    resolutions: tuple[int, ...] = ()
    crop: Crop = "biggan"
    channels: int | None = Field(default=None, ge=1, le=4)
    draft: bool = False
    strict: bool = False
    workers: int | None = Field(default=None, ge=1)


class TrainOptions(Settings):
    """`cdm train`. steps, batch_size, seed and flip are short for --set training.…"""

    name: str
    preset: str | None = None
    data: Path = Path(DATA)
    runs: Path = Path(RUNS)
    overrides: tuple[str, ...] = ()
    steps: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    flip: bool | None = None
    compute: Compute = Compute()
    select: str | None = None
    select_num: int = Field(default=10_000, ge=2)
    select_every: int = Field(default=5000, ge=1)
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


class SampleOptions(Settings):
    """`cdm sample`. classes: "0-9,17,tench"; num samples in all, or per_class of each."""

    stage: str = "base"
    classes: str | None = None
    num: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=None, ge=1)
    keep_s: tuple[int, ...] = ()
    out: Path = Path(LOWRES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: str | None = None


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
    out: Path = Path(SAMPLES)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    part: str | None = None


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
    num: int | None = Field(default=None, ge=2)
    out: Path = Path(SWEEP)
    sampling: Sampling = Sampling()
    judge: FeatureOptions = FeatureOptions()


class TuneOptions(Settings):
    """`cdm tune-schedule`. One search for each number of steps."""

    lowres: Path = Path(LOWRES)
    model: str | None = None
    steps: tuple[int, ...] = (4, 16, 64)
    s: int | None = Field(default=None, ge=0)
    num: int = Field(default=1000, ge=2)
    trials: int = Field(default=16, ge=1)
    out: Path = Path(SCHEDULE)
    sampling: Sampling = Sampling()
    judge: FeatureOptions = FeatureOptions()


class DemoOptions(Settings):
    """`cdm demo`. A directory of its own, so that nothing of the user's is in the way."""

    directory: Path = Path(DEMO)
    seed: int = Field(default=0, ge=0, lt=2**63)
    quiet: bool = False
