"""Which stage fits which store, found out from headers: no weight is read for it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cdm_cli.cascade.stagefile import advise_stage, find_stage, list_stages
from cdm_cli.config import StageConfig
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import CdmError, MismatchError, MissingError, UsageError, propose, quote
from cdm_cli.jobs.sampling.headers import (
    Header,
    compare_classes,
    describe_lowres_misfit,
    read_header,
    read_if_diffusion,
)
from cdm_cli.jobs.sampling.store_images import choose_part
from cdm_cli.presets import PRESETS
from cdm_cli.report import Report

MOST_STORES = 100  # of a directory, that are looked at


def find_base_stage(name_or_path: str, runs: Path) -> Header:
    """Return the base stage of that name; raise MissingError, or MismatchError for an SR stage."""
    return require_base(read_header(find_stage(name_or_path, runs), "base stage"))


def require_base(header: Header) -> Header:
    """Return the header of a base stage; raise MismatchError for another."""
    if header.config.kind != "base":
        raise MismatchError(
            f"{header.directory} is a super-resolution stage: it needs images to start from",
            next=f"cdm upsample; or {advise_stage('base stage', header.directory)}",
        )
    return header


def find_fitting_stage(name_or_path: str | None, runs: Path, store: Store, part: Part) -> Header:
    """Return the named super-resolution stage, or the only one in runs that fits the store.

    A stage fits a store that has images of the resolution and channels it starts from, and its
    classes, if it has any. Only `stage.json` is read. Raises MismatchError saying why a named one
    does not fit; without a name, UsageError where several fit and MissingError where none does.
    """
    if name_or_path is not None:
        header = _read_named(find_stage(name_or_path, runs), store, part, runs)
        _check_fit(header, store, part, runs)
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
        next=next(filter(None, ways), f"{advise_training(part)}; or --model with a path"),
    )


def _read_named(directory: Path, store: Store, part: Part, runs: Path) -> Header:
    """Read the header of a stage; raise MismatchError naming what fits instead of a classifier."""
    try:
        return read_header(directory, "super-resolution stage")
    except MismatchError as error:
        fits = _advise_fitting(store, part, runs)
        raise MismatchError(error.what, next=fits or error.next) from None


def _check_fit(header: Header, store: Store, part: Part, runs: Path) -> None:
    """Raise MismatchError saying why a stage does not fit the low-resolution images."""
    reason = describe_lowres_misfit(header, store, part)
    if reason:
        raise MismatchError(
            f"{header.directory} and {store.path} do not fit: {reason}",
            kept="no output was made",
            next=_advise_anew(header, store, part) or _advise_fit(header, store, part, runs),
        )


def _advise_fit(header: Header, store: Store, part: Part, runs: Path) -> str:
    """Return which stage fits the store, and which store the stage; else what makes one."""
    stores = advise_store("take", store.path, partial(starts_from, header), "")
    ways = filter(None, (_advise_fitting(store, part, runs), stores))
    return "; or ".join(ways) or _advise_making(header, part, runs)


def _advise_fitting(store: Store, part: Part, runs: Path) -> str:
    """Return which stage fits a store, "" where none does."""
    names = _list_fitting(runs, lambda other: not describe_lowres_misfit(other, store, part))
    return propose("--model", names, f"stage that fits {quote(store.path)}") if names else ""


def _advise_making(header: Header, part: Part, runs: Path) -> str:
    """Return the command that makes what a stage starts from, else a stage for images of a part."""
    makers = _list_fitting(runs, lambda other: _makes_input(other, header))
    if makers:
        return f"cdm sample {quote(makers[0])}: it makes what {quote(header.directory)} starts from"
    return advise_training(part)


def advise_training(part: Part) -> str:
    """Return the command that trains a super-resolution stage for images of a part."""
    stages = {name: plan.stage for name, plan in reversed(PRESETS.items())}
    names = [
        name
        for name, stage in stages.items()
        if isinstance(stage, StageConfig)
        and stage.conditioning is not None
        and stage.conditioning.resolution in part.resolutions
    ]
    if not names:
        return "cdm train sr --preset …"
    return propose("cdm train sr --preset", names, "one that starts from such images")


def _list_fitting(runs: Path, fits: Callable[[Header], bool]) -> list[str]:
    """Return the names of the diffusion stages that fit, without those that cannot be read."""
    headers = {name: _read_or_explain(runs / name) for name in list_stages(runs)}
    return [name for name, one in headers.items() if isinstance(one, Header) and fits(one)]


def _makes_input(base: Header, header: Header) -> bool:
    """Whether the samples of a base stage are what a super-resolution stage starts from."""
    low, model, ours = header.config.conditioning, header.config.model, base.config.model
    if base.config.kind != "base" or low is None or ours.resolution != low.resolution:
        return False
    same_classes = not model.num_classes or base.classes == header.classes
    return same_classes and ours.channels == model.channels


def starts_from(header: Header, store: Store) -> bool:
    """Whether a store has images that a super-resolution stage starts from."""
    return not describe_lowres_misfit(header, store, choose_part(store, None)[1])


def advise_store(
    flag: str, path: Path, fits: Callable[[Store], bool], otherwise: str, *,
    kind: str | None = None,
) -> str:  # fmt: skip
    """Return which finished store to take instead of one that does not fit, else other advice.

    It is looked for beside that one, and in this directory. flag: what names it. kind: "prepared"
    or "samples", if it must be of one.
    """
    found = {place.resolve(): place for place in [*path.parent.glob("*.h5"), *Path().glob("*.h5")]}
    found.pop(path.resolve(), None)
    some = sorted(found.values())[:MOST_STORES]
    places = [place for place in some if _does_fit(place, fits, kind)]
    return propose(flag, places, "store that fits") if places else otherwise


def _does_fit(path: Path, fits: Callable[[Store], bool], kind: str | None) -> bool:
    try:
        with open_store(path) as store:
            return store.finished and kind in (None, store.kind) and fits(store)
    except CdmError:
        return False


def tell_stage(name_or_path: str | None, header: Header, report: Report) -> None:
    """Say which stage was taken where none was named."""
    if name_or_path is None:
        report.say(propose("--model", [header.directory], "stage that fits"))


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
        return read_if_diffusion(directory) or "is a classifier"
    except CdmError as error:
        return error.what
