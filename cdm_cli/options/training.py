"""What `cdm train` is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, Lt

from cdm_cli.errors import UsageError
from cdm_cli.names import DATA, DATA_ENV, MOST_BATCH, MOST_JUDGED, MOST_STEPS, RUNS
from cdm_cli.options.flag import Check, Flag
from cdm_cli.options.sampling import Compute

SELECTABLE = ("fid",)


def is_plain(name: str) -> bool:
    """Whether a stage that is trained can have this name: one word, a directory in runs/."""
    return name not in ("", ".", "..") and name[0] != "-" and not {"/", "\0"} & set(name)


def _check_name(name: str) -> str:
    if not is_plain(name):
        raise UsageError(
            f"NAME {name!r}: expected one word without a slash, it names a directory in {RUNS}/",
            next="cdm train base --preset …",
        )
    return name


def _check_select(metric: str) -> str:
    if metric not in SELECTABLE:
        raise UsageError(
            f"--select {metric}: stages are selected by {', '.join(SELECTABLE)}",
            next="--select fid",
        )
    return metric


@dataclass(frozen=True)
class TrainOptions:
    """`cdm train`. steps, batch_size, seed and flip are short for --set training.…"""

    name: Annotated[
        str,
        Check(_check_name),
        Flag("The stage, kept in runs/NAME/.", "NAME", argument=True, optional=True),
    ]
    preset: Annotated[
        str | None, Flag("Where to start from; see --list-presets [default: as begun].", "P")
    ] = None
    list_presets: Annotated[
        bool, Flag("Print every preset, and stop.", instead="cdm_cli.presets:preset_rows")
    ] = False
    list_settings: Annotated[
        bool,
        Flag(
            "Print every setting, with --preset those of it, and stop.",
            instead="cdm_cli.presets:settings_rows",
        ),
    ] = False
    data: Annotated[Path, Flag("Prepared store.", "STORE", env=DATA_ENV)] = Path(DATA)
    runs: Path = Path(RUNS)
    overrides: Annotated[
        tuple[str, ...],
        Flag(
            "Change a setting, as model.dropout=0.1; repeatable; see --list-settings.",
            "FIELD=VALUE",
            ("--set",),
            repeat=True,
        ),
    ] = ()
    steps: Annotated[
        int | None, Ge(1), Le(MOST_STEPS), Flag("Steps in all [default: the preset's].", "N")
    ] = None
    batch_size: Annotated[
        int | None, Ge(1), Le(MOST_BATCH), Flag("Images of a step [default: the preset's].", "N")
    ] = None
    seed: Annotated[
        int | None,
        Ge(0),
        Lt(2**63),
        Flag("Seed of weights, data order and noise [default: the preset's].", "N"),
    ] = None
    flip: Annotated[
        bool | None,
        Flag("Mirror half of the images [default: the preset's, on].", names=("--flip/--no-flip",)),
    ] = None
    exact: Annotated[
        bool | None,
        Flag(
            "The same weights to the bit on 1, 2, 4 or 8 GPUs [default: as begun, off].",
            names=("--exact/--no-exact",),
        ),
    ] = None
    select: Annotated[
        str | None, Check(_check_select), Flag("Keep the weights with the best score.", "fid")
    ] = None
    select_num: Annotated[
        int, Ge(2), Le(MOST_JUDGED), Flag("Samples that --select judges.", "N")
    ] = 10_000
    select_every: Annotated[
        int, Ge(1), Le(MOST_STEPS), Flag("Steps from one judgement to the next.", "N")
    ] = 5000
    select_lowres: Annotated[
        Path | None,
        Flag("Generated images that --select enlarges [default: real ones].", "LOWRES"),
    ] = None
    features: Annotated[str | None, Flag("Who judges --select [default: inception].", "NAME")] = (
        None
    )
    compute: Compute = Compute()

    @property
    def directory(self) -> Path:
        """Where the stage is kept: runs/NAME."""
        return self.runs / self.name

    def __post_init__(self) -> None:
        """Raise UsageError for --select-lowres without --select."""
        if self.select_lowres and not self.select:
            raise UsageError(
                f"--select-lowres {self.select_lowres}: nothing is selected without --select",
                next="--select fid",
            )
