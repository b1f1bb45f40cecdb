"""Which stage fits which store, found out from headers: no weight is read for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.cascade.checkpoint import find_weights_file
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import name_checkpoint
from cdm_cli.cascade.stagefile import find_stage, list_stages, read_stage_file
from cdm_cli.config import ConditioningConfig, StageConfig
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import CdmError, MismatchError, MissingError, UsageError, quote
from cdm_cli.jobs.sampling.classes import find_classes_with_images
from cdm_cli.plans import Applied
from cdm_cli.report import Report


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


def read_header(directory: Path) -> Header:
    """Read `stage.json`; raise MismatchError where the stage is a classifier."""
    file = read_stage_file(directory)
    config = file.plan.stage
    if not isinstance(config, StageConfig):
        raise MismatchError(
            f"{directory} is a classifier, expected a diffusion stage", next="name another stage"
        )
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


def find_base_stage(name_or_path: str, runs: Path) -> Header:
    """Return the base stage of that name; raise MissingError, or MismatchError for an SR stage."""
    return require_base(read_header(find_stage(name_or_path, runs)))


def require_base(header: Header) -> Header:
    """Return the header of a base stage; raise MismatchError for another."""
    if header.config.kind != "base":
        raise MismatchError(
            f"{header.directory} is a super-resolution stage: it needs images to start from",
            next="cdm upsample, or name a base stage",
        )
    return header


def find_fitting_stage(name_or_path: str | None, runs: Path, store: Store, part: Part) -> Header:
    """Return the named super-resolution stage, or the only one in runs that fits the store.

    A stage fits a store that has images of the resolution and channels it starts from, and its
    classes, if it has any. Only `stage.json` is read. Raises MismatchError saying why a named one
    does not fit; without a name, UsageError where several fit and MissingError where none does.
    """
    if name_or_path is not None:
        header = read_header(find_stage(name_or_path, runs))
        _check_fit(header, store, part)
        return header
    headers = {name: _read_or_explain(runs / name) for name in list_stages(runs)}
    reasons = {
        name: describe_lowres_misfit(header, store, part) if isinstance(header, Header) else header
        for name, header in headers.items()
    }
    fits = [name for name, reason in reasons.items() if not reason]
    if len(fits) == 1:
        return read_header(runs / fits[0])
    if fits:
        raise UsageError(
            f"--model is missing: {', '.join(fits)} in {runs}/ all fit {store.path}",
            next=f"--model {quote(fits[0])}",
        )
    read = [header for header in headers.values() if isinstance(header, Header)]
    ways = (_advise_anew(header, store, part) for header in read)
    said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise MissingError(
        f"no super-resolution stage in {runs}/ fits {store.path} ({said or 'there is no stage'})",
        next=next(filter(None, ways), "cdm train sr --preset …, or --model with a path"),
    )


def _check_fit(header: Header, store: Store, part: Part) -> None:
    """Raise MismatchError saying why a stage does not fit the low-resolution images."""
    reason = describe_lowres_misfit(header, store, part)
    if reason:
        raise MismatchError(
            f"{header.directory} and {store.path} do not fit: {reason}",
            kept="no output was made",
            next=_advise_anew(header, store, part) or "name another --model or another store",
        )


def tell_stage(name_or_path: str | None, header: Header, report: Report) -> None:
    """Say which stage was taken where none was named."""
    if name_or_path is None:
        report.say(f"--model {quote(header.directory)}: the only stage that fits")


def _advise_anew(header: Header, store: Store, part: Part) -> str:
    """Return the command that makes the store anew if only its classes do not fit, else ""."""
    reason = describe_lowres_misfit(header, store, part)
    some = set(store.classes) <= set(header.classes)
    if not some or reason != compare_classes(header.classes, store.classes):
        return ""
    names = quote(header.directory)
    return f"cdm import IMAGES -o NAME.h5 --classes {names}: a store of all its classes"


def _read_or_explain(directory: Path) -> Header | str:
    """Return a stage's header, or the reason why it cannot be read: a damaged stage is skipped."""
    try:
        return read_header(directory)
    except MismatchError:
        return "is a classifier"
    except CdmError as error:
        return error.what


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
        return f"{one} has {channels} channels, {other} {part.count_channels(resolution)}"
    return ""


def compare_classes(
    ours: Sequence[str], theirs: Sequence[str], one: str = "the stage", other: str = "the store"
) -> str:
    """Return how the class names of one and another differ, or "" if they do not."""
    if len(ours) != len(theirs):
        return f"{one} has {len(ours)} classes, {other} {len(theirs)}"
    pairs = enumerate(zip(ours, theirs, strict=True))
    told = (f"class {k} is {a!r} in {one}, {b!r} in {other}" for k, (a, b) in pairs if a != b)
    return next(told, "")
