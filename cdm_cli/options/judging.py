"""What the commands are asked that judge samples, checkpoints or schedules against real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from cdm_cli.errors import UsageError
from cdm_cli.names import (
    BESIDES,
    CURVE,
    DATA,
    DATA_ENV,
    LEAST_JUDGED,
    LOWRES,
    METRICS,
    MOST_JUDGED,
    SAMPLES,
    SCHEDULE,
    WITH_ERRORS,
    InceptionMode,
    Searching,
)
from cdm_cli.options.flag import OUTPUT, Check, Flag, Reflag, Without
from cdm_cli.options.outputs import FolderOut, ScheduleOut, TableOut
from cdm_cli.options.sampling import (
    S_HELP,
    Compute,
    LowRes,
    Resolution,
    S,
    Sampling,
    Seed,
    Split,
)
from cdm_cli.sentences import suggest_near

Ref = Annotated[Path, Flag("Prepared store with the real images.", "STORE", env=DATA_ENV)]
AtLeastTwo = Annotated[int | None, Ge(2), Flag("How many images [default: all].", "N")]


def _check_metric(metric: str) -> str:
    if metric in BESIDES:
        raise UsageError(
            f"{metric} stands alone, not in a list of metrics", next=f"cdm eval {metric} …"
        )
    if metric not in (*METRICS, "all"):
        listed = f"METRIC {metric!r}: expected {', '.join(METRICS)} or all"
        raise UsageError(suggest_near(listed, metric, (*METRICS, "all")), next="cdm eval all")
    return metric


def _check_terms(terms: int) -> int:
    if terms == 1:
        raise UsageError("--terms 1: t = 1 and the others take two at least", next="--terms 64")
    return terms


@dataclass(frozen=True)
class FeatureOptions:
    """Which extractor judges: "inception", or a classifier stage by name or path."""

    features: Annotated[str, Flag("inception, or a classifier stage in runs/.", "NAME")] = (
        "inception"
    )
    mode: Annotated[InceptionMode, Flag("Resizing and weights of the Inception network.")] = "clean"
    ref: Ref = Path(DATA)
    compute: Compute = Compute()


@dataclass(frozen=True)
class EvalOptions:
    """`cdm eval`. metrics: those of `names.METRICS`, or all. Judging is always in float32.

    against: what each of the stores is compared with.
    """

    metrics: Annotated[
        tuple[Annotated[str, Check(_check_metric)], ...],
        Flag(f"{', '.join(METRICS)}, all; or a list.", "METRIC", argument=True),
    ]
    stores: Annotated[
        tuple[Path, ...],
        Flag("Store to judge; several: in one table.", "STORE", argument=True, repeat=True),
    ] = (Path(SAMPLES),)
    split: Split = None
    resolution: Resolution = None
    num: AtLeastTwo = None
    against: Annotated[Path | None, Flag("Another store: say whether they differ.", "STORE")] = None
    out: TableOut = None
    judge: Annotated[FeatureOptions, Without("precision", "compile")] = FeatureOptions()
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Raise UsageError for --against where no metric has the error that a comparison needs."""
        if self.against and self.metrics and not {*self.names} & {*WITH_ERRORS}:
            raise UsageError(
                f"--against: {', '.join(self.metrics)} cannot tell two stores apart, only "
                f"{', '.join(WITH_ERRORS)} can",
                next="cdm eval fid A.h5 --against B.h5",
            )
        if not self.compared:
            raise UsageError(
                f"--against {self.against}: it is the store that is judged", next="another store"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics, each once; of all, each of them."""
        listed = (METRICS if metric == "all" else (metric,) for metric in self.metrics)
        return tuple(dict.fromkeys(name for names in listed for name in names))

    @property
    def lenient(self) -> bool:
        """Whether a metric that cannot be had is left out with a note: with all, no error."""
        return "all" in self.metrics

    @property
    def compared(self) -> tuple[Path, ...]:
        """The stores, each once, without that of --against, which a pattern may name as well."""
        return tuple(path for path in dict.fromkeys(self.stores) if path != self.against)


@dataclass(frozen=True)
class TuneOptions:
    """`cdm tune-schedule`. One search for each number of steps.

    trials None: 40 of free schedules, 16 of linear ones. search None: that of the log which is
    there, or free.
    """

    lowres: LowRes = Path(LOWRES)
    model: Annotated[
        str | None,
        Flag(
            "A name in runs/ or a directory; a base stage takes no LOWRES [default: the stage that "
            "fits].",
            "STAGE",
        ),
    ] = None
    steps: Annotated[
        tuple[Annotated[int, Ge(1)], ...], Flag("Step counts to search a schedule for.", "LIST")
    ] = (4, 16, 64)
    s: S = None
    num: Annotated[int, Ge(LEAST_JUDGED), Flag("Images that judge a trial.", "N")] = 1000
    trials: Annotated[
        int | None, Ge(1), Flag("Schedules to try per count [default: 40, 16 linear ones].", "N")
    ] = None
    search: Annotated[
        Searching | None,
        Flag("Any times and noise, or the paper's linear schedules [default: free]."),
    ] = None
    start: Annotated[
        Path | None,
        Flag("Schedules found before, to begin with: of other weights, or another s.", "FILE"),
    ] = None
    reference: Annotated[
        int, Ge(0), Flag("Ancestral steps that all are compared with, 0 for none.", "N")
    ] = 250
    apply: Annotated[
        bool, Flag("Keep what is found with the stage, for --steps N.", names=("--apply",))
    ] = False
    out: ScheduleOut = Path(SCHEDULE)
    judge: FeatureOptions = FeatureOptions()
    sampling: Annotated[Sampling, Without("schedule", "restart_from", OUTPUT)] = Sampling()

    def __post_init__(self) -> None:
        """Raise UsageError for settings of sampling that a search decides itself."""
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


@dataclass(frozen=True)
class CurveOptions:
    """`cdm eval checkpoints`. weights: "all" checkpoints, or names of some, "ema" and "best"."""

    stage: Annotated[str, Flag("A stage in runs/ or a directory.", "NAME", argument=True)] = "base"
    weights: Annotated[
        tuple[str, ...],
        MinLen(1),
        Flag("all, or some of step-00001000,ema,best.", "LIST"),
    ] = ("all",)
    s: Annotated[int | None, Ge(0), Flag(f"{S_HELP} [default: a quarter of its range].", "S")] = (
        None
    )
    lowres: Annotated[
        Path | None,
        Flag("Generated images that it enlarges [default: real ones of --ref].", "LOWRES"),
    ] = None
    num: Annotated[
        int, Ge(2), Le(MOST_JUDGED), Flag("Samples that judge each checkpoint.", "N")
    ] = 10_000
    out: FolderOut = Path(CURVE)
    judge: FeatureOptions = FeatureOptions()
    sampling: Annotated[Sampling, Without(OUTPUT)] = Sampling()


@dataclass(frozen=True)
class ElboOptions:
    """`cdm eval elbo`. stages: one, or a cascade from its base up (Eq. 3).

    s: one for each super-resolution stage, in order. terms: how many t estimate the sum over
    t of each image, 0 for all. sampling.steps None: all T, as the stage was trained.
    """

    stages: Annotated[
        tuple[str, ...],
        MinLen(1),
        Flag(
            "One stage, or those of a cascade from its base up [default: base].",
            "STAGE",
            argument=True,
            repeat=True,
        ),
    ] = ("base",)
    ref: Ref = Path(DATA)
    split: Split = None
    s: Annotated[
        tuple[Annotated[int, Ge(0)], ...], Flag("One s for each super-resolution stage.", "LIST")
    ] = ()
    num: Annotated[int | None, Ge(2), Flag("How many images [default: 1000].", "N")] = None
    terms: Annotated[
        int, Ge(0), Check(_check_terms), Flag("Times t that stand for all, 0: all of them.", "N")
    ] = 64
    sampling: Annotated[
        Sampling,
        Without("sampler", "restart_from", OUTPUT),
        Reflag("steps", Flag("Steps of the bounded chain [default: all T].", "N")),
    ] = Sampling()
    compute: Compute = Compute()
