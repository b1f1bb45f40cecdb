"""What `cdm import` is about to do with images: order, ids, classes, and what they share."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.arrays import ArraySource
from cdm_cli.data.class_folders import read_numbers
from cdm_cli.data.images import GAMMA, PROFILE, BadImageError, ImageHeader, probe
from cdm_cli.data.labels import Labelled, list_classes, translate_labels
from cdm_cli.data.listing import digest_listing
from cdm_cli.data.schema import PartName, PartSpec, StoreSpec
from cdm_cli.data.sources import Source
from cdm_cli.errors import BadInputError, CdmError, MismatchError, quote
from cdm_cli.jobs.exchange.import_openai import read_names
from cdm_cli.jobs.sampling.blocks import choose_image_block_size
from cdm_cli.jobs.sampling.provenance import make_parent, make_provenance, spell_command
from cdm_cli.metrics.order import rank_in_class
from cdm_cli.options.files import ImportOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

T = TypeVar("T")
THREADS = 8
LARGEST = 4096
TOO_MUCH = "which 8 bits of gray or RGB cannot keep"
LOSSY = {
    "16-bit": ("are", f"16-bit, {TOO_MUCH}"),
    "CMYK": ("are", f"CMYK, {TOO_MUCH}"),
    PROFILE: ("have", "a colour profile, which is ignored"),
    GAMMA: ("have", "another gamma, which is ignored"),
}
CONVENTIONS = {
    "pixels": "as in the files: EXIF orientation applied, palettes resolved, 16 bits cut to 8",
    "order": "by the numbers in file names or the rows of the array; else interleaved by class",
}


@dataclass(frozen=True)
class ImportPlan:
    """Images in the order of the store [N], and what they have in common."""

    source: Source
    y: NDArray[np.int64]
    ids: NDArray[np.int64]
    how_ids: str
    resolution: int
    channels: int
    conversions: dict[str, int]


def list_labels(found: Labelled, options: ImportOptions) -> tuple[Labelled, tuple[str, ...]]:
    """Return the labels that were found, and the names of all classes of the store.

    These are the names of --classes, of which the images may have some only; without --classes
    those of the images. Raises MismatchError for a class that is not among the given ones.
    """
    if options.classes is None:
        return found, list_classes(found)
    names, told = read_names(options.classes), f"--classes {options.classes}"
    advice = "name the folders as the classes are called, or --labels FILE"
    y = translate_labels(names, found, told, advice)
    return replace(found, y=y, classes=names), names


def plan_import(found: Labelled, src: Path, report: Report) -> ImportPlan:
    """Look at every header, report what pixels will lose, and put the images in order.

    Raises what `look_at` raises.
    """
    resolution, channels, conversions = look_at(found.source, src, report)
    for kind, count in conversions.items():
        verb, rest = LOSSY[kind]
        report.say(f"{src}: {format_count(count, 'image', verb)} {rest}")
    order, ids, how = order_images(found)
    source = found.source.take(order.tolist())
    return ImportPlan(source, found.y[order], ids, how, resolution, channels, conversions)


def order_images(found: Labelled) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the order of the images [N], the ids in that order [N], and where they came from."""
    source, N = found.source, len(found.source.names)
    if isinstance(source, ArraySource):
        return np.arange(N), np.arange(N), "rows of the array"
    stems = [os.path.splitext(name.rpartition("/")[2])[0] for name in source.names]
    told = read_numbers(stems)
    if told is not None:
        return told.order, told.ids[told.order], "file names"
    return interleave(found.y), np.arange(N), "counted"


def interleave(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order [N] in which the first image of each class y [N] comes, then the second."""
    return np.lexsort((y, rank_in_class(y))).astype(np.int64)


def look_at(source: Source, src: Path, report: Report) -> tuple[int, int, dict[str, int]]:
    """Return the resolution, the channels that lose nothing, and counts of lossy conversions.

    The headers of all files are read; of an array one image, since all are alike. Raises
    MismatchError for images of several sizes, not square or too large; BadInputError naming an
    image that cannot be used.
    """
    first: tuple[int, int] | None = None
    colour = alpha = False
    conversions: dict[str, int] = {}
    num = 1 if isinstance(source, ArraySource) else len(source.names)
    with report.track("look", num, "images") as advance:
        for i, header in enumerate(map_in_threads(partial(_read_header, source, src), range(num))):
            size = header.width, header.height
            first = first or size
            if size != first or size[0] != size[1] or size[0] > LARGEST:
                raise _size_error(src, source, i, size, first)
            colour, alpha = colour or not header.gray, alpha or "alpha" in header.kinds
            for kind in LOSSY.keys() & header.kinds:
                conversions[kind] = conversions.get(kind, 0) + 1
            advance(1, "")
    assert first is not None
    return first[0], (3 if colour else 1) + alpha, conversions


def _size_error(
    src: Path, source: Source, i: int, size: tuple[int, int], first: tuple[int, int]
) -> CdmError:
    what = f"{src}: {source.names[i]} is {size[0]}×{size[1]}"
    if size != first:
        what += f", {source.names[0]} is {first[0]}×{first[1]}"
    return MismatchError(
        f"{what}; samples are square, of one size, and up to {LARGEST}",
        kept="no store was made",
        next=f"cdm prepare {quote(src)} --resolution N, which crops and resizes",
    )


def _read_header(source: Source, src: Path, i: int) -> ImageHeader:
    try:
        data = source.read(i)
        if isinstance(data, bytes):
            return probe(data)
    except BadImageError as error:
        raise unusable_error(src, source.names[i], error) from None
    height, width, channels = data.shape
    return ImageHeader(width, height, channels < 3, ("alpha",) if channels in (2, 4) else ())


def unusable_error(src: Path, name: str, error: BadImageError) -> CdmError:
    """Return the error for an image that cannot be used."""
    return BadInputError(
        f"{src}: image {name} cannot be used: {error}",
        kept="no store was made, the source was left as it is",
        next="repair or remove it",
    )


def map_in_threads(work: Callable[[int], T], rows: range) -> Iterator[T]:
    """Yield work(i) for every row in order, in threads, a bounded number ahead."""
    with ThreadPoolExecutor(THREADS, "import") as pool:
        for start in range(rows.start, rows.stop, 64 * THREADS):
            yield from pool.map(work, range(start, min(start + 64 * THREADS, rows.stop)))


def make_spec(plan: ImportPlan, classes: tuple[str, ...], options: ImportOptions) -> StoreSpec:
    """Return the contents and the provenance of the store."""
    parts: dict[PartName, PartSpec] = {
        "": PartSpec(len(plan.ids), {plan.resolution: plan.channels})
    }
    digest = plan.source.digest()
    identity = {
        "command": "import",
        "source": digest,
        "labels": digest_listing((), plan.y),
        "ids": digest_listing((), plan.ids),
        "num": len(plan.ids),
    }
    parents = [make_parent("source", plan.source.name, digest)]
    return StoreSpec(
        kind="samples",
        parts=parts,
        classes=list(classes),
        provenance=make_provenance(
            spell_command("import", options), identity, parents, CONVENTIONS
        ),
        block_size=choose_image_block_size(parts),
    )
