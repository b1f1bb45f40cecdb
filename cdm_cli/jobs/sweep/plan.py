"""Which points a sweep over s has, and what decides their numbers: from headers and flags alone.

A point is one s with one origin of z_s. At s = 0 truncated and non-truncated are the same
images, the paper's "no conditioning augmentation"; that point exists once, as "none".
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cdm_cli.cascade.conditioning import check_same_process
from cdm_cli.config import ConditioningConfig
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.judging.header import judge_fields, open_reference
from cdm_cli.jobs.runtime.identity import chain_fields
from cdm_cli.jobs.runtime.same_stage import config_digest
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.headers import Header, fitting_stage, weights_digest
from cdm_cli.jobs.sampling.make import Work
from cdm_cli.jobs.sampling.rows import part_of, tell_part
from cdm_cli.names import LEAST_JUDGED, RUNS, Augment
from cdm_cli.options.judging import SweepOptions
from cdm_cli.options.sampling import UpsampleOptions
from cdm_cli.report import Report

Kind = Literal["none", "truncated", "non-truncated", "ground-truth"]
KINDS: tuple[Kind, ...] = ("none", "truncated", "non-truncated", "ground-truth")
UP_TO = 3 / 8  # of T: the paper's range, 1501 of 4000
TIMES = 6


@dataclass(frozen=True)
class Point:
    """One s with one origin of z_s, and the work of upsampling it."""

    augment: Kind
    s: int
    work: Work
    out: Path

    @property
    def samples(self) -> Path:
        """Its upsampled images, a store like any other."""
        return self.out / f"{self.augment}-s{self.s:04d}.h5"

    @property
    def judged(self) -> Path:
        """Its numbers."""
        return self.samples.with_suffix(".json")


@dataclass(frozen=True)
class Sweep:
    """The points, and all that must be equal for another run to add to them."""

    out: Path
    header: Header
    points: tuple[Point, ...]
    identity: dict[str, Any]
    parents: tuple[dict[str, str], ...]

    @property
    def mark(self) -> str:
        """What tells the points of this sweep from those of another."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


def planned(options: SweepOptions, stack: ExitStack, report: Report) -> Sweep:
    """Decide all that headers and flags decide; the stack keeps the stores open.

    Raises UsageError, MissingError and MismatchError for everything that does not fit.
    """
    store = stack.enter_context(open_store(options.lowres))
    _, part = part_of(store, None)
    tell_part(store, None, report)
    header = fitting_stage(options.model, Path(RUNS), store, part)
    reference = open_reference(options.judge.ref, header, stack)
    judge = judge_fields(options.judge)
    num = _enough(options, part)
    times = options.s or default_times(header)
    points = [
        _point(options, header, store, augment, s, num)
        for s, augment in _generated(options, store, part, header, times, report)
    ]
    if options.ground_truth:
        real = _real(reference.store, options)
        num_real = _enough_real(min(num, real.parts["val"].num), options)
        points += [
            _point(options, header, real, "ground-truth", s, num_real) for s in sorted(set(times))
        ]
    first = points[0].work
    identity = {
        "lowres": store.digest,
        "stage": config_digest(header.config),
        "weights": weights_digest(header.directory, options.sampling.weights),
        **chain_fields(header.config, first.chain, options.sampling.seed),
        "num": num,
        **judge,
        "ref": reference.digest,
    }
    parents = [parent for point in points for parent in point.work.parents]
    parents.append(reference.parent)
    distinct = {json.dumps(parent): parent for parent in parents}
    return Sweep(options.out, header, tuple(points), identity, tuple(distinct.values()))


def default_times(header: Header) -> list[int]:
    """Return 0 and the paper's six s (251, 501, … 1501 of T = 4000), at the scale of z_schedule.

    Where training drew s from less than that, they are spread over what it drew. Raises
    UsageError for a stage that knows s = 0 only.
    """
    conditioning = header.conditioning
    if not conditioning.gaussian:
        raise UsageError(
            f"{header.directory} was trained without Gaussian conditioning augmentation: it takes "
            "s = 0 only, and there is nothing to search",
            next="cdm upsample, or cdm sweep-s --s 0 to judge it",
        )
    return [*([0] if _takes_zero(conditioning) else []), *_spread(conditioning)]


def _takes_zero(conditioning: ConditioningConfig) -> bool:
    return conditioning.s_min == 0 or conditioning.s_zero > 0


def _spread(conditioning: ConditioningConfig) -> list[int]:
    low, high = max(1, conditioning.s_min), conditioning.highest_s
    last = round(UP_TO * conditioning.z_schedule.T) + 1
    first = 1  # of the paper's grid, which has steps of T / 16 from here
    if not low <= last <= high:
        first, last = low, high
    steps = [first + round((last - first) * k / TIMES) for k in range(1, TIMES + 1)]
    return sorted({s for s in steps if low <= s <= high})


def _enough(options: SweepOptions, part: Part) -> int:
    num = part.num if options.num is None else options.num
    if num < LEAST_JUDGED:
        raise UsageError(
            f"{num} images of {options.lowres} are too few to judge: FID and IS with their errors "
            f"take {LEAST_JUDGED} at least",
            next="cdm sample more of them",
        )
    return num


def _generated(
    options: SweepOptions,
    store: Store,
    part: Part,
    header: Header,
    times: Sequence[int],
    report: Report,
) -> Iterator[tuple[int, Kind]]:
    """Yield each s with each origin of z_s that is asked for, or that the store can give."""
    kinds: tuple[Augment, ...] = tuple(dict.fromkeys(options.augments))
    kept = set(part.z_times) if "truncated" in kinds else _usable(store, part, header, report)
    for s in sorted(set(times)):
        if s == 0:
            yield s, "none"
            continue
        if "truncated" in kinds or (not kinds and s in kept):
            yield s, "truncated"
        if "non-truncated" in kinds or not kinds:
            yield s, "non-truncated"


def _usable(store: Store, part: Part, header: Header, report: Report) -> set[int]:
    """Return the times whose kept states mean to the stage what it was trained on."""
    usable: set[int] = set()
    for s in part.z_times:
        try:
            check_same_process(header.conditioning, upsample.process_of(store), [s], store.path)
        except MismatchError as error:
            report.say(f"sweep-s: left out: {error.what}")
        else:
            usable.add(s)
    return usable


def _real(reference: Store | None, options: SweepOptions) -> Store:
    if reference is None or "val" not in reference.parts:
        raise UsageError(
            f"--ground-truth: {options.judge.ref} has no validation images to upsample",
            next="--ref with a prepared store that has them (cdm prepare … --val), or leave it out",
        )
    return reference


def _enough_real(num: int, options: SweepOptions) -> int:
    """Return the number of real images; raise UsageError where their points could not be judged."""
    if num < LEAST_JUDGED:
        raise UsageError(
            f"--ground-truth: the {num} validation images of {options.judge.ref} are too few to "
            f"judge: FID and IS with their errors take {LEAST_JUDGED} at least",
            next="--ref with more of them, or leave --ground-truth out",
        )
    return num


def _point(
    options: SweepOptions, header: Header, store: Store, augment: Kind, s: int, num: int
) -> Point:
    """Plan one point as `cdm upsample` plans it: same checks, same samples, same provenance."""
    asked = UpsampleOptions(
        lowres=store.path,
        model=str(header.directory),
        s=s,
        augment="truncated" if augment == "truncated" else "non-truncated",
        split="val" if augment == "ground-truth" else None,
        num=num,
        sampling=options.sampling,
        compute=options.judge.compute,
    )
    return Point(augment, s, upsample.planned(asked, store), options.out)
