"""What the commands under `cdm eval` were asked to do: one frozen model per job."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cdm_cli.config import Settings
from cdm_cli.names import (
    CAS,
    CURVE,
    DATA,
    SAMPLES,
    CasNet,
)
from cdm_cli.options import Compute, FeatureOptions, Sampling


class EvalOptions(Settings):
    """`cdm eval`. metrics: those of `names.METRICS`, or all."""

    metrics: tuple[str, ...]
    store: Path = Path(SAMPLES)
    split: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    num: int | None = Field(default=None, ge=2)
    judge: FeatureOptions = FeatureOptions()
    seed: int = Field(default=0, ge=0, lt=2**63)
    out: Path | None = None


class CurveOptions(Settings):
    """`cdm eval checkpoints`. weights: "all" checkpoints, or names of some, "ema" and "best"."""

    stage: str = "base"
    weights: tuple[str, ...] = Field(default=("all",), min_length=1)
    s: int | None = Field(default=None, ge=0)
    num: int = Field(default=10_000, ge=2)
    out: Path = Path(CURVE)
    sampling: Sampling = Sampling()
    judge: FeatureOptions = FeatureOptions()


class CasOptions(Settings):
    """`cdm eval cas`. steps: instead of epochs, of the samples. lr None: 0.1 for 256 images.

    batch_size: the images of a step, of all processes together.
    """

    store: Path = Path(SAMPLES)
    ref: Path = Path(DATA)
    split: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    num: int | None = Field(default=None, ge=2)
    net: CasNet = "resnet50"
    epochs: float = Field(default=90, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=2)
    lr: float | None = Field(default=None, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    out: Path = Path(CAS)
    compute: Compute = Compute()


class ElboOptions(Settings):
    """`cdm eval elbo`. stages: one, or a cascade from its base up (Eq. 3).

    s: one for each super-resolution stage, in order. terms: how many t estimate the sum over
    t of each image, 0 for all. sampling.steps None: all T, as the stage was trained.
    """

    stages: tuple[str, ...] = Field(default=("base",), min_length=1)
    ref: Path = Path(DATA)
    split: str | None = None
    s: tuple[Annotated[int, Field(ge=0)], ...] = ()
    num: int | None = Field(default=None, ge=2)
    terms: int = Field(default=64, ge=0)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
