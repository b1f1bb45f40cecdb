"""What `cdm sweep` and its short form `cdm sweep-s` are asked: which points, and who judges them.

`--axis NAME=V,V` varies one setting of sampling. Its values are checked as those of the flag of
that name; the points are all combinations.
"""

import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from annotated_types import Ge

from cdm_cli.errors import UsageError
from cdm_cli.names import LEAST_JUDGED, LOWRES, SWEEP, Augment
from cdm_cli.options.durations import make_duration_check
from cdm_cli.options.flag import Check, Flag, Harmless, find_marks
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.outputs import FolderOut
from cdm_cli.options.sampling import LowRes, Model, S, Sampling
from cdm_cli.sentences import find_fault_in, suggest_near

SHARED = {
    "seed": "points share their noise, by which they are compared; --seed is one for all",
    "augment": "--augment says where z_s is from, once for each kind",
    **{name: mark.why for name, mark in find_marks(Sampling, Harmless).items()},
}
"""What is no axis, and why."""

UNKEPT = {"schedule": None, "restart_from": None, "clip": True, "weights": "ema"}
"""Settings of sampling that a stage keeps no default of, and what it is sampled with."""

NONE = "none"  # of a setting that may be left out

_HINTS: dict[str, Any] = get_type_hints(Sampling, include_extras=True)
_KINDS: dict[str, Any] = {"s": S, **{k: v for k, v in _HINTS.items() if k not in SHARED}}
AXES = tuple(_KINDS)
"""Settings that may be an axis, by the names of their fields, in the order of points."""


def spell(axis: str) -> str:
    """Return the name of an axis as it is typed, that of its flag."""
    return axis.replace("_", "-")


def parse_axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return the field that `NAME=V,V` names, and its values, each once, as the flag takes them.

    Raises UsageError for another name, and for a value that the flag of that name refuses.
    """
    name, _, listed = text.partition("=")
    axis = name.strip().replace("-", "_")
    words = [word.strip() for word in listed.split(",") if word.strip()]
    if axis in SHARED:
        raise UsageError(f"--axis {spell(axis)}: {SHARED[axis]}", next="leave it out")
    if axis not in AXES:
        names = [spell(known) for known in AXES]
        told = f"--axis {name or text}: expected one of {', '.join(names)}"
        raise UsageError(suggest_near(told, spell(axis), names), next="--axis s=0,251,501")
    if not words:
        raise UsageError(f"--axis {text}: expected NAME=V,V", next=f"--axis {spell(axis)}=…")
    return axis, tuple(dict.fromkeys(_parse_value(axis, word) for word in words))


def _parse_value(axis: str, word: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    may_be_none = any(f.name == axis and f.default is None for f in fields(Sampling))
    if may_be_none and word.lower() == NONE:
        return None
    try:
        return TypeAdapter(_KINDS[axis]).validate_python(word)
    except ValidationError as error:
        told = f"--axis {spell(axis)}={word}: {find_fault_in(error).sentence}"
        raise UsageError(told, next="cdm upsample --help") from None


def _check_axis(text: str) -> str:
    parse_axis(text)
    return text


@dataclass(frozen=True)
class SweepOptions:
    """`cdm sweep`. augments empty: every kind that the store can give.

    s is short for the axis of that name. ground_truth is short for ground_truth_of=("val",).
    race: images go where they are likely to tell which point is the best. budget, budget_evals:
    what the race may cost; where neither is given, a tenth of the whole grid.
    """

    command: ClassVar[str] = "sweep"

    lowres: LowRes = Path(LOWRES)
    model: Model = None
    s: Annotated[
        tuple[Annotated[int, Ge(0)], ...], Flag("Times of z_s, short for --axis s=LIST.", "LIST")
    ] = ()
    axes: Annotated[
        tuple[Annotated[str, Check(_check_axis)], ...],
        Flag(
            f"Values to compare of {', '.join(map(spell, AXES))}; repeatable, for a grid.",
            "NAME=LIST",
            ("--axis",),
            repeat=True,
        ),
    ] = ()
    augments: Annotated[
        tuple[Augment, ...],
        Flag(
            "truncated or non-truncated; repeatable [default: all the store gives].",
            "KIND",
            ("--augment",),
            repeat=True,
        ),
    ] = ()
    ground_truth: Annotated[bool, Flag("Also upsample the real images of --ref.")] = False
    ground_truth_of: Annotated[
        tuple[Literal["train", "val"], ...],
        Flag(
            "Real images that are upsampled: train,val [default: val, with --ground-truth].", "LIST"
        ),
    ] = ()
    num: Annotated[int | None, Ge(LEAST_JUDGED), Flag("How many images [default: all].", "N")] = (
        None
    )
    apply: Annotated[
        bool, Flag("Let `cdm upsample` take what is chosen, for this stage, unless told otherwise.")
    ] = False
    race: Annotated[bool, Flag("Make no more images of points that are beaten or paused.")] = False
    budget: Annotated[
        str | None,
        Check(make_duration_check("--budget")),
        Flag("Time that a race samples: 90s, 30m, 2h [default: see --budget-evals].", "TIME"),
    ] = None
    budget_evals: Annotated[
        int | None, Ge(1), Flag("Network evaluations of a race [default: 1/10 of all].", "N")
    ] = None
    out: FolderOut = Path(SWEEP)
    judge: FeatureOptions = FeatureOptions()
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        """Raise UsageError for a setting that is given twice, or flags that exclude each other."""
        self._check_race()
        typed = [axis for axis, _ in map(parse_axis, self.axes)]
        flags = [f.name for f in fields(Sampling) if getattr(self.sampling, f.name) != f.default]
        given = [*typed, *flags, *(["s"] if self.s else [])]
        for axis in map(spell, (axis for axis in typed if given.count(axis) > 1)):
            raise UsageError(
                f"--axis {axis} is given twice, or beside --{axis}",
                next=f"one --axis {axis}=V,V with all its values",
            )
        for name in UNKEPT:
            if self.apply and name in flags:
                raise UsageError(
                    f"--apply: stages keep no default of --{spell(name)}",
                    next="leave one of them out",
                )

    def _check_race(self) -> None:
        given = [name for name in ("budget", "budget_evals") if getattr(self, name) is not None]
        flags = [f"--{name.replace('_', '-')} {getattr(self, name)}" for name in given]
        if flags and not self.race:
            raise UsageError(f"{flags[0]} is that of a race", next=f"--race {flags[0]}")
        if len(flags) > 1:
            raise UsageError(f"{' and '.join(flags)}: a race has one budget", next=flags[0])
        if self.race and self.apply:
            raise UsageError(
                "--apply: a race says which points may be the best, a grid which is chosen",
                next="--race alone, then the same without --race and with --apply, which goes on",
            )
        if self.race and self.real:
            raise UsageError(
                "--race: real images are no points of a race, which is of generated ones",
                next="--race without --ground-truth, then the same without --race and with it",
            )

    @property
    def times(self) -> tuple[int, ...]:
        """The values of s, ascending; none where none is given."""
        return tuple(sorted({*self.s, *dict(map(parse_axis, self.axes)).get("s", ())}))

    @property
    def varied(self) -> tuple[str, ...]:
        """The axes besides s, in the order of AXES."""
        given = {axis for axis, _ in map(parse_axis, self.axes)}
        return tuple(axis for axis in AXES if axis in given - {"s"})

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the values of the axes besides s, by the names of fields."""
        values = dict(map(parse_axis, self.axes))
        lists = [values[axis] for axis in self.varied]
        return [dict(zip(self.varied, one, strict=True)) for one in itertools.product(*lists)]

    @property
    def real(self) -> tuple[Literal["train", "val"], ...]:
        """The splits of real images that are upsampled too."""
        return tuple(dict.fromkeys(self.ground_truth_of)) or (("val",) if self.ground_truth else ())


@dataclass(frozen=True)
class SweepSOptions(SweepOptions):
    """`cdm sweep-s`: a sweep over s alone; values that are not given follow from the stage's T."""

    command: ClassVar[str] = "sweep-s"

    s: Annotated[
        tuple[Annotated[int, Ge(0)], ...],
        Flag("Times to compare [default: 0 and six to 3/8 of T].", "LIST"),
    ] = ()
    axes: tuple[str, ...] = ()
