"""`cdm import SRC -o NAME.h5`: images of others as a store of samples, unchanged.

Order and ids are those that file names tell (`data/class_folders.py`), else the rows of an
array; other files are interleaved by class, so that every prefix is balanced, as samples are.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm_cli.__version__ import __version__
from cdm_cli.data import durable
from cdm_cli.data.class_folders import numbers
from cdm_cli.data.images import (
    U8,
    BadImageError,
    Header,
    decode,
    from_array,
    probe,
    to_array,
    with_channels,
)
from cdm_cli.data.labels import Labelled, class_names, labelled
from cdm_cli.data.schema import PartSpec, StoreSpec, fitting_block_size
from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import Source, open_source
from cdm_cli.data.store import Part, resume_or_create
from cdm_cli.errors import BadInputError, CdmError, MismatchError, StoppedError
from cdm_cli.jobs.blocks import BlockWriter, block_size
from cdm_cli.jobs.export_folder import CLASSES_JSON, EXPORT_JSON
from cdm_cli.jobs.import_openai import read_names
from cdm_cli.jobs.provenance import typed
from cdm_cli.jobs.training_stop import Stop
from cdm_cli.options import ImportStoreOptions, Report

SPOOL = ".unpacked"
BLOCK_BYTES = 2**26
THREADS = 8
LARGEST = 4096
LOSSY = ("16-bit", "CMYK")
CONVENTIONS = {
    "pixels": "as in the files: EXIF orientation applied, palettes resolved, 16 bits cut to 8",
    "order": "by the numbers in file names or the rows of the array; else interleaved by class",
}


@dataclass(frozen=True)
class ImportedStore:
    """What is there now. made: images of this run; the others were there before.

    labels, ids: where they came from. conversions: images whose pixels are not all kept.
    """

    out: Path
    samples: int
    made: int
    resolution: int
    channels: int
    classes: int
    labels: str
    ids: str
    conversions: dict[str, int]
    skipped: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """Images in the order of the store [N], and what they have in common."""

    source: Source
    y: NDArray[np.int64]
    ids: NDArray[np.int64]
    how_ids: str
    resolution: int
    channels: int
    conversions: dict[str, int]


def run(options: ImportStoreOptions, report: Report) -> ImportedStore:
    """Import every image; the same command typed again continues.

    Raises MismatchError where images differ in size, BadInputError naming an image that cannot
    be used, and what `open_source` and `resume_or_create` raise.
    """
    spool = options.out.with_name(f"{options.out.name}{SPOOL}")
    try:
        return _run(options, spool, report)
    finally:
        durable.unlink(spool)


def _run(options: ImportStoreOptions, spool: Path, report: Report) -> ImportedStore:
    skips = Skips()
    found = labelled(open_source(options.src, skips, spool), options.labels, skips)
    if not found.source.names:
        raise BadInputError(f"{options.src} holds no image", next="cdm inspect, or another SRC")
    classes = _classes(found, options)
    plan = planned(found, options.src, report)
    skipped = _skipped(skips)
    for reason, count in skipped.items():
        report.say(f"{options.src}: {count} passed over: {reason}")
    with resume_or_create(options.out, spec_of(plan, classes, options)) as store:
        made = filled(store.parts[""], plan, options.src, report)
    return ImportedStore(
        out=options.out,
        samples=len(plan.ids),
        made=made,
        resolution=plan.resolution,
        channels=plan.channels,
        classes=len(classes),
        labels=found.how,
        ids=plan.how_ids,
        conversions=plan.conversions,
        skipped=skipped,
    )


def _classes(found: Labelled, options: ImportStoreOptions) -> tuple[str, ...]:
    """Return the class names: those of --classes, which must be enough, else as found."""
    own = class_names(found)
    if options.classes is None:
        return own
    names = read_names(options.classes)
    if found.classes is not None and found.classes != names:
        raise MismatchError(
            f"--classes {options.classes}: {options.src} names its classes itself ({found.how})",
            next="leave --classes away",
        )
    if len(names) < len(own):
        raise MismatchError(
            f"--classes {options.classes} has {len(names)} names, the labels go up to "
            f"{len(own) - 1}",
            next="one name per line, in the order of the labels",
        )
    return names


def _skipped(skips: Skips) -> dict[str, int]:
    """Return what was passed over, the tables of an export aside."""
    own = {CLASSES_JSON, EXPORT_JSON}
    counts = {
        reason: count - len(own & set(skips.examples[reason]))
        for reason, count in skips.counts.items()
    }
    return {reason: count for reason, count in counts.items() if count}


def planned(found: Labelled, src: Path, report: Report) -> Plan:
    """Look at every header, and put the images in order."""
    resolution, channels, conversions = looked_at(found.source, src, report)
    for kind, count in conversions.items():
        report.say(f"{src}: {count} images are {kind} and lose some of it in 8 bits a channel")
    order, ids, how = ordered(found)
    source = found.source.take(order.tolist())
    return Plan(source, found.y[order], ids, how, resolution, channels, conversions)


def ordered(found: Labelled) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the order of the images [N], the ids in that order [N], and where they came from."""
    source, N = found.source, len(found.source.names)
    if source.labels is not None or source.names[0].startswith("arr_0["):
        return np.arange(N), np.arange(N), "rows of the array"
    stems = [os.path.splitext(name.rpartition("/")[2])[0] for name in source.names]
    told = numbers(stems)
    if told is not None:
        return told.order, told.ids[told.order], "file names"
    return interleaved(found.y), np.arange(N), "counted"


def interleaved(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order in which the first of each class come first, then the second, and so on."""
    by_class = np.argsort(y, kind="stable")
    rank = np.empty(len(y), np.int64)
    rank[by_class] = np.arange(len(y)) - np.searchsorted(y[by_class], y[by_class])
    return np.lexsort((y, rank)).astype(np.int64)


def looked_at(source: Source, src: Path, report: Report) -> tuple[int, int, dict[str, int]]:
    """Return the resolution, the channels that lose nothing, and counts of lossy conversions.

    Raises MismatchError for images of several sizes, or not square; BadInputError.
    """
    first: tuple[int, int] | None = None
    colour = alpha = False
    conversions: dict[str, int] = {}
    with report.track("look", len(source.names), "images") as advance:
        for i, header in enumerate(_each(partial(_header, source, src), range(len(source.names)))):
            size = header.width, header.height
            first = first or size
            if size != first or size[0] != size[1] or size[0] > LARGEST:
                raise _unlike(src, source, i, size, first)
            colour, alpha = colour or not header.gray, alpha or "alpha" in header.kinds
            for kind in set(header.kinds) & set(LOSSY):
                conversions[kind] = conversions.get(kind, 0) + 1
            advance(1, "")
    assert first is not None
    return first[0], (3 if colour else 1) + alpha, conversions


def _unlike(
    src: Path, source: Source, i: int, size: tuple[int, int], first: tuple[int, int]
) -> CdmError:
    what = f"{src}: {source.names[i]} is {size[0]}×{size[1]}"
    if size != first:
        what += f", {source.names[0]} is {first[0]}×{first[1]}"
    return MismatchError(
        f"{what}; samples are square, of one size, and up to {LARGEST}",
        kept="no store was made",
        next=f"cdm prepare {src} --resolution N, which crops and resizes",
    )


def _header(source: Source, src: Path, i: int) -> Header:
    try:
        data = source.read(i)
        if isinstance(data, bytes):
            return probe(data)
    except BadImageError as error:
        raise _bad(src, source.names[i], error) from None
    height, width, channels = data.shape
    return Header(width, height, channels < 3, ("alpha",) if channels in (2, 4) else ())


def _bad(src: Path, name: str, error: BadImageError) -> CdmError:
    return BadInputError(
        f"{src}: image {name} cannot be used: {error}",
        kept="the source was left as it is",
        next="repair or remove it",
    )


def _each(work: Any, rows: range) -> Iterator[Any]:
    """Yield work(i) for every row in order, in threads, a bounded number ahead."""
    with ThreadPoolExecutor(THREADS, "import") as pool:
        for start in range(rows.start, rows.stop, 64 * THREADS):
            yield from pool.map(work, range(start, min(start + 64 * THREADS, rows.stop)))


def spec_of(plan: Plan, classes: tuple[str, ...], options: ImportStoreOptions) -> StoreSpec:
    """Return the contents and the provenance of the store."""
    part, source = PartSpec(len(plan.ids), {plan.resolution: plan.channels}), plan.source
    digest = source.digest()
    return StoreSpec(
        kind="samples",
        parts={"": part},
        classes=list(classes),
        provenance={
            "cdm": __version__,
            "command": typed("import", options.src, options),
            "identity": {
                "command": "import",
                "source": digest,
                "labels": hashlib.sha256(plan.y.astype("<i8").tobytes()).hexdigest(),
                "ids": hashlib.sha256(plan.ids.astype("<i8").tobytes()).hexdigest(),
                "num": len(plan.ids),
            },
            "parents": [{"role": "source", "name": source.name, "digest": digest}],
            "conventions": CONVENTIONS,
        },
        block_size=min(block_size(part.num), fitting_block_size({"": part}, BLOCK_BYTES)),
    )


def filled(part: Part, plan: Plan, src: Path, report: Report) -> int:
    """Decode and write the blocks that are missing; return how many images.

    Raises StoppedError between two blocks, BadInputError naming an image, DiskError.
    """
    pending = part.pending()
    num = sum(len(part.block_range(b)) for b in pending)
    with Stop() as stop, report.track("import", num, "images") as advance:
        with BlockWriter(part) as writer:
            for b in pending:
                if stop.asked:
                    writer.wait()
                    raise StoppedError(
                        f"stopped by {stop.asked}",
                        kept=f"{part.num_blocks - len(part.pending())} of {part.num_blocks} "
                        "blocks are complete",
                        next="the same command continues",
                    )
                rows = part.block_range(b)
                images = np.stack(list(_each(partial(_pixels, plan, src), rows)))
                inside = slice(rows.start, rows.stop)
                arrays = {"ids": plan.ids[inside], "labels": plan.y[inside]}
                writer.put(b, {**arrays, f"images/{plan.resolution}": images})
                advance(len(rows), "")
    return num


def _pixels(plan: Plan, src: Path, i: int) -> U8:
    """Return the pixels [R, R, C] of an image. Raises BadInputError naming it."""
    name = plan.source.names[i]
    try:
        data = plan.source.read(i)
        image = decode(data) if isinstance(data, bytes) else from_array(data)
    except BadImageError as error:
        raise _bad(src, name, error) from None
    pixels = to_array(with_channels(image, plan.channels))
    if pixels.shape[:2] != (plan.resolution, plan.resolution):
        raise _bad(src, name, BadImageError("it changed while it was imported"))
    return pixels
