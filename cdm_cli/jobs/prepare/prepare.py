"""`cdm prepare`: images of any common layout become one store, every resolution at once.

The store is filled under another name, `data.h5.preparing`, and gets its own when it is whole;
until then the same command continues. Images that cannot be used show only when they are
decoded: where there were any, the rest is copied into a store without them.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cdm_cli.data import disk
from cdm_cli.data.images import BadImageError
from cdm_cli.data.prepared import prepare_image
from cdm_cli.data.schema import PartName, StoreSpec
from cdm_cli.data.spool import spool_beside
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import BadInputError, CdmError, quote
from cdm_cli.jobs.prepare.cost import estimate_cost, measure_layout
from cdm_cli.jobs.prepare.decode import LEFT_OUT, fill_part
from cdm_cli.jobs.prepare.plan import CHANNELS, FoundImages, list_sources, make_spec
from cdm_cli.jobs.prepare.without import WITHOUT, copy_without, give_name
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.jobs.runtime.same_store import (
    check_same_store,
    remove_if_refused,
    resume_or_create,
)
from cdm_cli.jobs.sampling.classes import describe_empty, find_empty_classes
from cdm_cli.options.files import PrepareOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

PREPARING = ".preparing"


@dataclass(frozen=True)
class Prepared:
    """What was found and written. skipped: one row for each reason, of each part.

    without_images: the classes that train has no image of, as where none could be used, or where a
    table counts from 1.
    """

    out: Path
    train: int
    val: int
    classes: int
    labels: str
    resolutions: tuple[int, ...]
    channels: str
    without_images: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    conversions: dict[str, int] = field(default_factory=dict[str, int])
    skipped: list[dict[str, object]] = field(default_factory=list[dict[str, object]])


def run(options: PrepareOptions, report: Report) -> Prepared:
    """Write the store; returns at once where it is there already.

    Raises MissingError, BadInputError and UnsafeInputError for sources, MismatchError where
    val has other classes, WouldOverwriteError for an `out` of another command, StoppedError,
    DiskError.
    """
    out = options.out
    with (
        spool_beside(_name_beside(out, ".train")) as train,
        spool_beside(_name_beside(out, ".val")) as val,
    ):
        return _run(options, {"train": train, "val": val}, report)


def plan(options: PrepareOptions, report: Report) -> dict[str, object]:
    """Return what `run` would make, and what that costs; nothing is left behind.

    A source that has to be unpacked is, for as long as this takes. Raises what `run` raises before
    it decodes.
    """
    out = options.out
    with (
        spool_beside(_name_beside(out, ".train")) as train,
        spool_beside(_name_beside(out, ".val")) as val,
    ):
        found, classes = list_sources(options, {"train": train, "val": val}, report)
        spec = make_spec(options, found, classes)
        there = os.path.lexists(out)
        if there:
            _check_same(out, spec)
        else:
            disk.check_room(out, measure_layout(spec))
        left = 0 if there else sum(len(part.images.y) for part in found.values())
        return {"out": str(out), **estimate_cost(found, spec, _count_workers(options), left)}


def _count_workers(options: PrepareOptions) -> int:
    return options.workers or len(os.sched_getaffinity(0))


def _run(options: PrepareOptions, spools: Mapping[str, Path], report: Report) -> Prepared:
    found, classes = list_sources(options, spools, report)
    spec = make_spec(options, found, classes)
    if os.path.lexists(options.out):
        _check_same(options.out, spec)
        for tail in (PREPARING, WITHOUT):
            _tidy(_name_beside(options.out, tail), spec)
        _explain_again(options.out, found)
        report.say(f"{options.out} is there already")
        conversions = Counter[str]()
    else:
        conversions = _fill(options, found, spec, report)
    return _summarise(options, found, classes, conversions, report)


def _name_beside(path: Path, tail: str) -> Path:
    return path.with_name(f"{path.name}{tail}")


def _check_same(out: Path, spec: StoreSpec) -> None:
    """Raise WouldOverwriteError unless out is what this command makes, images left out aside."""
    with open_store(out) as store:
        store.require_finished()
        same = read_identity(store.provenance) == read_identity(spec.provenance)
        if same and store.kind == spec.kind and store.classes == list(spec.classes):
            return
        check_same_store(store, spec)


def _tidy(path: Path, spec: StoreSpec) -> None:
    """Remove the work of this command that it was killed too early to remove itself."""
    if not os.path.lexists(path):
        return
    try:
        store = open_store(path, writable=True)
    except CdmError:  # another job's, or no store at all
        return
    with store:
        ours = read_identity(store.provenance) == read_identity(spec.provenance)
    if ours:
        disk.unlink(path)


def _fill(
    options: PrepareOptions, found: Mapping[PartName, FoundImages], spec: StoreSpec, report: Report
) -> Counter[str]:
    """Fill the store under its other name, then give it its own."""
    path, conversions = _name_beside(options.out, PREPARING), Counter[str]()
    with resume_or_create(path, spec, next=f"repeat that command, or rm {quote(path)}") as store:
        left_out: dict[PartName, np.ndarray] = {}
        with remove_if_refused(path):
            for name, part in found.items():
                workers = _count_workers(options)
                conversions += fill_part(store.parts[name], path, part.images, workers, report)
            for name, part in found.items():
                left_out[name] = _find_left_out(store, name, part)
        for name, rows in left_out.items():
            _explain(found[name], rows)
        if any(len(rows) for rows in left_out.values()):
            skipped: dict[PartName, Mapping[str, object]] = {
                name: dict(part.skips.as_json()) for name, part in found.items()
            }
            copy_without(store, options.out, spec, left_out, skipped, report)
            disk.unlink(path)
        else:
            give_name(path, options.out)
    return conversions


def _find_left_out(store: Store, name: PartName, part: FoundImages) -> np.ndarray:
    """Return the rows whose image could not be used. Raises BadInputError where that is all."""
    ids = np.asarray(store.parts[name].ids)
    if (ids < 0).all():
        _explain(part, LEFT_OUT - ids[:1])
        reason = next(iter(part.skips.counts))
        raise BadInputError(
            f"{part.images.source.name}: not one of {format_count(len(ids), 'image')} can be "
            f"used: {reason}",
            kept="no store was made",
            next="check the files",
        )
    return LEFT_OUT - ids[ids < 0]


def _explain(part: FoundImages, rows: np.ndarray) -> None:
    """Read images that were left out once more, for the reason."""
    source = part.images.source
    for row in rows.tolist():
        try:
            prepare_image(source.read(row), part.images.recipe, source.names[row])
        except BadImageError as error:
            part.skips.add(str(error), source.names[row])


def _explain_again(out: Path, found: Mapping[PartName, FoundImages]) -> None:
    """Find what an earlier run of this command left out."""
    with open_store(out) as store:
        for name, part in found.items():
            _explain(part, np.setdiff1d(np.arange(len(part.images.y)), store.parts[name].ids))


def _summarise(
    options: PrepareOptions,
    found: Mapping[PartName, FoundImages],
    classes: tuple[str, ...],
    conversions: Counter[str],
    report: Report,
) -> Prepared:
    recipe = found["train"].images.recipe
    with open_store(options.out) as store:
        num = {name: part.num for name, part in store.parts.items()}
        empty = find_empty_classes(store.parts["train"].labels, len(classes))
    if empty:
        report.say(f"train: {describe_empty(classes, empty)}")
    return Prepared(
        out=options.out,
        train=num["train"],
        val=num.get("val", 0),
        classes=len(classes),
        labels=found["train"].how,
        resolutions=recipe.resolutions,
        channels=f"{recipe.channels} ({CHANNELS[recipe.channels]})",
        without_images=[{"id": k, "class": classes[k]} for k in empty],
        conversions=dict(sorted(conversions.items())),
        skipped=[
            {"part": name, "images": count, "reason": reason, "first": part.skips.examples[reason]}
            for name, part in found.items()
            for reason, count in part.skips.counts.items()
        ],
    )
