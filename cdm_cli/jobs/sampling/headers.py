"""What `stage.json` says of a diffusion stage, and how a store differs from what it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.cascade.checkpoint import find_weights_file
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import name_checkpoint
from cdm_cli.cascade.stagefile import other_kind_error, read_stage_file
from cdm_cli.config import ConditioningConfig, StageConfig
from cdm_cli.data.store import Part, Store
from cdm_cli.jobs.sampling.classes import find_classes_with_images
from cdm_cli.plans import Applied
from cdm_cli.units import format_count


@dataclass(frozen=True)
class Header:
    """What `stage.json` says of a diffusion stage. empty: ids of classes that had no image.

    applied: what searches found, in order; in_force: which of it, from 1, is the default.
    """

    directory: Path
    config: StageConfig
    classes: tuple[str, ...]
    empty: tuple[int, ...] = ()
    applied: tuple[Applied, ...] = ()
    in_force: int = 0

    @property
    def default(self) -> Applied | None:
        """What `cdm upsample` takes by default, None for the stage's own."""
        return self.applied[self.in_force - 1] if self.in_force else None

    @property
    def shown(self) -> tuple[int, ...]:
        """Ids of the classes that it has seen, which it can draw."""
        return find_classes_with_images(len(self.classes), self.empty)

    @property
    def conditioning(self) -> ConditioningConfig:
        """How a super-resolution stage is conditioned."""
        assert self.config.conditioning is not None
        return self.config.conditioning


def read_header(directory: Path, expected: str = "diffusion stage") -> Header:
    """Read `stage.json`; raise MismatchError where the stage is a classifier.

    expected: the kind that the error says and names a stage of.
    """
    header = read_if_diffusion(directory)
    if header is None:
        raise other_kind_error(directory, "classifier", expected)
    return header


def read_if_diffusion(directory: Path) -> Header | None:
    """Read `stage.json`; return None where the stage is a classifier."""
    file = read_stage_file(directory)
    config = file.plan.stage
    if not isinstance(config, StageConfig):
        return None
    classes, empty = (file.data.classes, file.data.without_images) if file.data else ((), ())
    return Header(directory, config, classes, empty, file.applied, file.in_force)


def read_weights_digest(directory: Path, weights: str = "ema") -> str:
    """Return the SHA-256 that a file of weights claims; it is checked when they are loaded.

    Raises MissingError where there are no such weights.
    """
    return read_metadata(find_weights_file(directory, weights)).get("sha256", "")


def read_checkpoint_digest(directory: Path, step: int) -> str:
    """Return the SHA-256 of the averaged weights of a checkpoint, "" for step 0."""
    return read_weights_digest(directory, name_checkpoint(step)) if step else ""


def describe_lowres_misfit(header: Header, store: Store, part: Part) -> str:
    """Return why the stage cannot start from this store, or "" if it can."""
    conditioning = header.config.conditioning
    if conditioning is None:
        return "it is a base stage"
    return describe_misfit(header, store, part, conditioning.resolution, "starts from")


def describe_misfit(
    header: Header, store: Store, part: Part, resolution: int, does: str = "takes"
) -> str:
    """Return how images of a part at a resolution, or their classes, differ from the stage's.

    "" where they do not. does: what the stage does with such images, as "makes".
    """
    model = header.config.model
    fault = compare_images(part, resolution, model.channels, does=does)
    if fault or not model.num_classes:
        return fault
    return compare_classes(header.classes, store.classes)


def compare_images(
    part: Part, resolution: int, channels: int, one: str = "the stage", other: str = "the store",
    does: str = "has",
) -> str:  # fmt: skip
    """Return how the images of a part differ from those of one resolution and channels, or "".

    one: who has or takes such images, which `does` says; other: whose part it is.
    """
    if resolution not in part.resolutions:
        there = ", ".join(map(str, part.resolutions))
        return f"{one} {does} {resolution}×{resolution}, {other} has {there}"
    if part.count_channels(resolution) != channels:
        return (
            f"{one} has {format_count(channels, 'channel')}, {other} "
            f"{part.count_channels(resolution)}"
        )
    return ""


def compare_classes(
    ours: Sequence[str], theirs: Sequence[str], one: str = "the stage", other: str = "the store"
) -> str:
    """Return how the class names of one and another differ, or "" if they do not."""
    if len(ours) != len(theirs):
        return f"{one} has {format_count(len(ours), 'class')}, {other} {len(theirs)}"
    pairs = enumerate(zip(ours, theirs, strict=True))
    told = (f"class {k} is {a!r} in {one}, {b!r} in {other}" for k, (a, b) in pairs if a != b)
    return next(told, "")
