"""Which points a sweep has, and what decides their numbers: from headers and flags alone.

A point is one s with one origin of z_s, and one value on every other axis.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.cascade.conditioning import check_same_process
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.judging.header import identify_judge, open_reference
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.fitting import find_fitting_stage, tell_stage
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.store_images import choose_part, find_maker, tell_rows
from cdm_cli.jobs.sweep.point import (
    DECIDED,
    REAL,
    Kind,
    Point,
    find_axis_fields,
    find_identity_fields,
    settle_axes,
)
from cdm_cli.jobs.sweep.times import choose_times
from cdm_cli.names import LEAST_JUDGED, RUNS, Augment
from cdm_cli.options.sampling import UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

IMAGES = {"train": "training", "val": "validation"}


class Setting(NamedTuple):
    """A kind of conditioning at one s, for the first num images of a store."""

    augment: Kind
    s: int
    store: Store
    num: int


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep. identity: what must be equal for another run to add points to them."""

    out: Path
    header: Header
    points: tuple[Point, ...]
    identity: dict[str, Any]
    parents: tuple[dict[str, str], ...]

    @property
    def mark(self) -> str:
        """The digest of the identity, which the file of each point records."""
        return make_mark(self.identity)


def make_mark(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity: it tells the points of one sweep from those of another."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def plan_work(options: SweepOptions, stack: ExitStack, report: Report) -> Sweep:
    """Decide the points and the identity of a sweep from headers and flags; no weights are read.

    stack: keeps the opened stores open. Raises UsageError for flags that name no point or too few
    images, MissingError for inputs that do not exist, MismatchError for inputs that do not fit each
    other.
    """
    store = stack.enter_context(open_store(options.lowres))
    _, part = choose_part(store, None)
    header = find_fitting_stage(options.model, Path(RUNS), store, part)
    tell_stage(options.model, header, report)
    reference = open_reference(options.judge.ref, header, stack, report)
    judge = identify_judge(options.judge)
    num = _check_num(options, part)
    tell_rows(store, None, num, report)
    times = choose_times(options, header)
    settings = [
        *_list_generated(options, store, part, header, times, num, report),
        *_list_real(options, reference.store, times, num),
    ]
    points = _combine(options, header, settings)
    fields = find_identity_fields(points[0].work)
    of_points = {name for axis in options.varied for name in DECIDED[axis]}
    identity = {
        "lowres": store.digest,
        "stage": compute_config_digest(header.config),
        **{name: value for name, value in fields.items() if name not in of_points},
        **({"axes": list(options.varied)} if options.varied else {}),
        "num": num,
        **judge,
        "ref": reference.digest,
    }
    parents = [parent for point in points for parent in point.work.parents]
    parents.append(reference.parent)
    distinct = {json.dumps(parent): parent for parent in parents}
    return Sweep(options.out, header, points, identity, tuple(distinct.values()))


def _check_num(options: SweepOptions, part: Part) -> int:
    num = part.num if options.num is None else options.num
    if num < LEAST_JUDGED:
        raise UsageError(
            f"{options.lowres}: {format_count(num, 'image', 'are')} too few to judge: FID and "
            f"IS with their errors take {LEAST_JUDGED} at least",
            next="cdm sample more of them",
        )
    return num


def _list_generated(
    options: SweepOptions, store: Store, part: Part, header: Header, times: Sequence[int],
    num: int, report: Report,
) -> Iterator[Setting]:  # fmt: skip
    """Yield each s with each origin of z_s that is asked for, or that the store can give."""
    kinds: tuple[Augment, ...] = tuple(dict.fromkeys(options.augments))
    kept = (
        set(part.z_times)
        if "truncated" in kinds
        else _find_usable_times(store, part, header, options, report)
    )
    if not kinds:
        _tell_lacking(options, store, part, times, report)
    for s in times:
        if s == 0:
            yield Setting("none", s, store, num)
            continue
        if "truncated" in kinds or (not kinds and s in kept):
            yield Setting("truncated", s, store, num)
        if "non-truncated" in kinds or not kinds:
            yield Setting("non-truncated", s, store, num)


def _tell_lacking(
    options: SweepOptions, store: Store, part: Part, times: Sequence[int], report: Report
) -> None:
    """Say of which s a reverse process kept no state; other images never had one."""
    lacking = [str(s) for s in times if s and s not in part.z_times]
    if lacking and (maker := find_maker(store)):
        report.say(
            f"{options.command}: {store.path} kept no state at s = {', '.join(lacking)}, so "
            f"truncated is left out there (cdm {maker} --keep-s keeps them)"
        )


def _find_usable_times(
    store: Store, part: Part, header: Header, options: SweepOptions, report: Report
) -> set[int]:
    """Return the times whose kept states mean to the stage what it was trained on."""
    usable: set[int] = set()
    for s in part.z_times:
        try:
            check_same_process(header.conditioning, upsample.read_process(store), [s], store.path)
        except MismatchError as error:
            report.say(f"{options.command}: left out: {error.what}")
        else:
            usable.add(s)
    return usable


def _list_real(
    options: SweepOptions, reference: Store | None, times: Sequence[int], num: int
) -> Iterator[Setting]:
    """Yield each s with the real images of each split that is asked for."""
    for split in options.real:
        if reference is None or split not in reference.parts:
            raise UsageError(
                f"--ground-truth: {options.judge.ref} has no {IMAGES[split]} images to upsample",
                next="--ref with a prepared store of them (cdm prepare … --val), or leave it out",
            )
        there = _check_num_real(min(num, reference.parts[split].num), split, options)
        yield from (Setting(REAL[split], s, reference, there) for s in times)


def _check_num_real(num: int, split: str, options: SweepOptions) -> int:
    """Return the number of real images; raise UsageError where their points could not be judged."""
    if num < LEAST_JUDGED:
        raise UsageError(
            f"--ground-truth: {options.judge.ref} has {format_count(num, f'{IMAGES[split]} image')}"
            f", too few to judge: FID and IS with their errors take {LEAST_JUDGED} at least",
            next="--ref with more of them, or leave --ground-truth out",
        )
    return num


def _combine(
    options: SweepOptions, header: Header, settings: Sequence[Setting]
) -> tuple[Point, ...]:
    """Combine settings with all values on other axes; two that come to the same are one point."""
    points: dict[Path, Point] = {}
    for axes in options.grid:
        for setting in settings:
            point = _plan_point(options, header, setting, axes)
            points.setdefault(point.samples, point)
    return tuple(points.values())


def _plan_point(
    options: SweepOptions, header: Header, setting: Setting, axes: Mapping[str, Any]
) -> Point:
    """Plan one point as `cdm upsample` plans it: same checks, same samples, same provenance."""
    split = next((split for split, kind in REAL.items() if kind == setting.augment), None)
    asked = UpsampleOptions(
        lowres=setting.store.path,
        model=str(header.directory),
        s=setting.s,
        augment="truncated" if setting.augment == "truncated" else "non-truncated",
        split=split,
        num=setting.num,
        sampling=replace(options.sampling, **axes),
        compute=options.judge.compute,
    )
    work = upsample.plan_work(asked, setting.store)
    taken, fields = settle_axes(axes, work), find_axis_fields(axes, work)
    return Point(setting.augment, setting.s, taken, fields, work, options.out)
