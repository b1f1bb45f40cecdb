"""What the commands under `cdm eval` were asked to do: one frozen model per job."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from cdm_cli.config import Settings
from cdm_cli.errors import UsageError
from cdm_cli.names import (
    BESIDES,
    CAS,
    CURVE,
    DATA,
    METRICS,
    MOST_BATCH,
    MOST_JUDGED,
    MOST_STEPS,
    SAMPLES,
    CasNet,
)
from cdm_cli.options import Compute, FeatureOptions, Sampling
from cdm_cli.outputs import FolderOut, TableOut
from cdm_cli.sentences import with_near


def parsed(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the metrics that a list names; all: each of them, accuracy where it applies."""
    found: list[str] = []
    for metric in metrics:
        found += METRICS if metric == "all" else [metric]
    return tuple(dict.fromkeys(found))


def _metric(metric: str) -> str:
    if metric in BESIDES:
        raise UsageError(
            f"{metric} stands alone, not in a list of metrics", next=f"cdm eval {metric} …"
        )
    if metric not in (*METRICS, "all"):
        listed = f"METRIC {metric!r}: expected {', '.join(METRICS)} or all"
        raise UsageError(with_near(listed, metric, (*METRICS, "all")), next="cdm eval all")
    return metric


class EvalOptions(Settings):
    """`cdm eval`. metrics: those of `names.METRICS`, or all."""

    metrics: tuple[Annotated[str, AfterValidator(_metric)], ...]
    store: Path = Path(SAMPLES)
    split: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    num: int | None = Field(default=None, ge=2)
    judge: FeatureOptions = FeatureOptions()
    seed: int = Field(default=0, ge=0, lt=2**63)
    out: TableOut = None


class CurveOptions(Settings):
    """`cdm eval checkpoints`. weights: "all" checkpoints, or names of some, "ema" and "best"."""

    stage: str = "base"
    weights: tuple[str, ...] = Field(default=("all",), min_length=1)
    s: int | None = Field(default=None, ge=0)
    num: int = Field(default=10_000, ge=2, le=MOST_JUDGED)
    out: FolderOut = Path(CURVE)
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
    epochs: float = Field(default=90, gt=0, le=MOST_STEPS)
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    batch_size: int = Field(default=256, ge=2, le=MOST_BATCH)
    lr: float | None = Field(default=None, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    out: FolderOut = Path(CAS)
    compute: Compute = Compute()


def _terms(terms: int) -> int:
    if terms == 1:
        raise UsageError("--terms 1: t = 1 and the others take two at least", next="--terms 64")
    return terms


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
    terms: Annotated[int, AfterValidator(_terms)] = Field(default=64, ge=0)
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
