"""`cdm import SRC -o NAME.h5`: images of others as a store of samples, unchanged.

Order and ids are those that file names tell (`data/class_folders.py`), else the rows of an
array; other files are interleaved by class, so that every prefix is balanced, as samples are.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cdm_cli.data.blocks import Block
from cdm_cli.data.hdf5_foreign import find_inside
from cdm_cli.data.images import U8, BadImageError, convert_channels, decode, from_array, to_array
from cdm_cli.data.labels import find_labels, require_images
from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import open_source
from cdm_cli.data.spool import spool_beside
from cdm_cli.data.store import Part
from cdm_cli.jobs.exchange.export_folder import CLASSES_JSON, EXPORT_JSON
from cdm_cli.jobs.exchange.import_plan import (
    ImportPlan,
    list_labels,
    make_spec,
    map_in_threads,
    plan_import,
    unusable_error,
)
from cdm_cli.jobs.runtime.same_store import remove_if_refused, resume_or_create
from cdm_cli.jobs.sampling.blocks import write_missing
from cdm_cli.options.files import ImportOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class ImportedStore:
    """The store as it is now. made: images of this run; the others were there before.

    labels, ids: where they came from, in words. conversions: how many images of each kind lose
    something of their pixels. skipped: how many files were passed over, by reason.
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


def run(options: ImportOptions, report: Report) -> ImportedStore:
    """Import every image; the same command typed again continues.

    Raises MismatchError where images differ in size, BadInputError naming an image that cannot
    be used, and what `open_source` and `resume_or_create` raise.
    """
    with spool_beside(options.out) as spool:
        return _run(options, spool, report)


def _run(options: ImportOptions, spool: Path, report: Report) -> ImportedStore:
    skips = Skips()
    inside, table = find_inside(options.images, options.labels)
    source = open_source(options.src, skips, spool, follow=options.follow_links, inside=inside)
    found = find_labels(source, table, skips)
    require_images(found, options.src, skips)
    found, classes = list_labels(found, options)
    plan = plan_import(found, options.src, report)
    skipped = _count_skips(skips)
    for reason, count in skipped.items():
        report.say(f"{options.src}: {count} passed over: {reason}")
    with resume_or_create(options.out, make_spec(plan, classes, options)) as store:
        with remove_if_refused(options.out):
            made = fill_blocks(store.parts[""], plan, options.src, report)
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


def _count_skips(skips: Skips) -> dict[str, int]:
    """Return what was passed over, the tables of an export aside."""
    own = {CLASSES_JSON, EXPORT_JSON}
    counts = {
        reason: count - len(own & set(skips.examples[reason]))
        for reason, count in skips.counts.items()
    }
    return {reason: count for reason, count in counts.items() if count}


def fill_blocks(part: Part, plan: ImportPlan, src: Path, report: Report) -> int:
    """Decode and write the blocks that are missing; return how many images.

    Raises what `write_missing` raises, and BadInputError naming an image.
    """

    def make(b: int) -> Block:
        rows = part.list_rows(b)
        images = np.stack(list(map_in_threads(partial(_read_pixels, plan, src), rows)))
        inside = slice(rows.start, rows.stop)
        arrays = {"ids": plan.ids[inside], "labels": plan.y[inside]}
        return {**arrays, f"images/{plan.resolution}": images}

    return write_missing(part, make, "import", report)


def _read_pixels(plan: ImportPlan, src: Path, i: int) -> U8:
    """Return the pixels [R, R, C] of an image. Raises BadInputError naming it."""
    name = plan.source.names[i]
    try:
        data = plan.source.read(i)
        image = decode(data) if isinstance(data, bytes) else from_array(data)
    except BadImageError as error:
        raise unusable_error(src, name, error) from None
    pixels = to_array(convert_channels(image, plan.channels))
    if pixels.shape[:2] != (plan.resolution, plan.resolution):
        raise unusable_error(src, name, BadImageError("it changed while it was imported"))
    return pixels
