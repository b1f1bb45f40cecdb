"""What `cdm prepare` is about to do: which images, of which classes, become what."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.data.hdf5_foreign import Inside, find_inside
from cdm_cli.data.labels import (
    RULES,
    Labelled,
    find_labels,
    list_classes,
    require_images,
    translate_labels,
)
from cdm_cli.data.listing import digest_listing
from cdm_cli.data.prepared import DRAFT, ImageRecipe, look
from cdm_cli.data.resize import CONVENTIONS
from cdm_cli.data.schema import PartName, PartSpec, StoreSpec
from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import open_source
from cdm_cli.errors import UsageError
from cdm_cli.jobs.prepare.decode import Images
from cdm_cli.jobs.sampling.blocks import choose_image_block_size
from cdm_cli.jobs.sampling.provenance import make_parent, make_provenance, spell_command
from cdm_cli.names import MOST_RESOLUTION
from cdm_cli.options.files import PrepareOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count

DRAFTED = f", JPEGs decoded at 1/2, 1/4 or 1/8 where {DRAFT} pixels are left for one that is stored"
RESOLUTIONS = "--resolution 64, repeated for every stage of the cascade"
CHANNELS = {1: "gray", 2: "gray and alpha", 3: "colour", 4: "colour and alpha"}


class FoundImages(NamedTuple):
    """The images of one part, and what was passed over while they were listed."""

    images: Images
    how: str
    skips: Skips


def list_sources(
    options: PrepareOptions, spools: Mapping[str, Path], report: Report
) -> tuple[dict[PartName, FoundImages], tuple[str, ...]]:
    """List both sources, and decide what all images become; return them and the class names.

    spools: where each part may unpack its source. Raises UsageError for flags that do not fit each
    other or the images, MismatchError where val has other classes, and what `open_source` and
    `find_labels` raise.
    """
    follow = options.follow_links
    inside, table = find_inside(options.images, options.labels)
    train, train_skips = _label(options.src, table, spools["train"], follow, inside)
    classes = list_classes(train)
    sources: dict[PartName, tuple[Labelled, Skips]] = {"train": (train, train_skips)}
    labels = {"train": train.y}
    if options.val is not None:
        images = options.val_images or options.images
        rule = options.labels if images or str(options.labels) in RULES else None
        inside, table = find_inside(images, options.val_labels or rule)
        val, skips = _label(options.val, table, spools["val"], follow, inside)
        sources["val"], labels["val"] = (val, skips), translate_labels(classes, val)
    elif options.val_labels is not None or options.val_images is not None:
        flag = "--val-labels" if options.val_labels is not None else "--val-images"
        raise UsageError(f"{flag} without --val", next="--val SRC")
    recipe = _choose_recipe(options, train)
    found: dict[PartName, FoundImages] = {}
    for name, (part, skips) in sources.items():
        report.say(
            f"{name}: {format_count(len(part.source.names), 'image')} in {part.source.name} "
            f"({part.how})"
        )
        images = Images(part.source, labels[name], recipe, options.strict)
        found[name] = FoundImages(images, part.how, skips)
    return found, classes


def _label(
    path: Path, table: Path | None, spool: Path, follow: bool, inside: Inside | None
) -> tuple[Labelled, Skips]:
    skips = Skips()
    source = open_source(path, skips, spool, follow=follow, inside=inside)
    found = find_labels(source, table, skips)
    require_images(found, path, skips)
    return found, skips


def _choose_recipe(options: PrepareOptions, train: Labelled) -> ImageRecipe:
    """Fix resolutions and channels, by looking at images of train where that is left open."""
    resolutions = tuple(sorted(set(options.resolutions)))
    if options.draft and options.crop != "biggan":
        raise UsageError(f"--draft with --crop {options.crop}", next="leave one of them away")
    if resolutions and options.channels:
        return ImageRecipe(
            resolutions, options.channels, options.crop, found=False, draft=options.draft
        )
    seen = look(train.source)
    if not resolutions:
        if seen.size is None or seen.size[0] != seen.size[1]:
            raise UsageError(
                f"--resolution is missing: {options.src} has images of several sizes",
                next=RESOLUTIONS,
            )
        resolutions = (seen.size[0],)
        if seen.size[0] > MOST_RESOLUTION:
            raise UsageError(
                f"--resolution is missing: images of {options.src} have {seen.size[0]} pixels a "
                f"side, a store at most {MOST_RESOLUTION}",
                next=RESOLUTIONS,
            )
    channels = options.channels or seen.channels
    found = options.channels is None
    return ImageRecipe(resolutions, channels, options.crop, found, options.draft)


def make_spec(
    options: PrepareOptions, found: Mapping[PartName, FoundImages], classes: tuple[str, ...]
) -> StoreSpec:
    """Return the store that holds every image of the listing, and what identifies the command."""
    recipe = found["train"].images.recipe
    sizes = dict.fromkeys(recipe.resolutions, recipe.channels)
    parts: dict[PartName, PartSpec] = {
        name: PartSpec(len(part.images.y), sizes) for name, part in found.items()
    }
    return StoreSpec(
        kind="prepared",
        parts=parts,
        classes=list(classes),
        provenance=_record_provenance(options, found, recipe),
        block_size=choose_image_block_size(parts),
    )


def _record_provenance(
    options: PrepareOptions, found: Mapping[PartName, FoundImages], recipe: ImageRecipe
) -> dict[str, Any]:
    said = {"crop": recipe.crop, "channels": recipe.channels, "strict": options.strict}
    if recipe.draft:
        said["draft"] = DRAFT
    sources = {name: part.images.source for name, part in found.items()}
    digests = {name: source.digest() for name, source in sources.items()}
    identity = {
        "command": "prepare",
        "sources": digests,
        "labels": {name: digest_listing((), part.images.y) for name, part in found.items()},
        "resolutions": list(recipe.resolutions),
        **said,
    }
    parents = [make_parent(name, source.name, digests[name]) for name, source in sources.items()]
    conventions = {
        "crop": CONVENTIONS[recipe.crop] + (DRAFTED if recipe.draft else ""),
        "channels": CHANNELS[recipe.channels],
        "labels": found["train"].how,
    }
    return make_provenance(spell_command("prepare", options), identity, parents, conventions)
