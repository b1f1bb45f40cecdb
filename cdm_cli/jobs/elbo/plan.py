"""Which stages are bounded on which images, decided from headers and flags alone."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.checkpoint import find_weights_file
from cdm_cli.cascade.conditioning import check_s, find_nearest_s
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.data.store import Store, open_store
from cdm_cli.diffusion.schedules import find_index, from_config
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.sampling.fitting import advise_store
from cdm_cli.jobs.sampling.headers import Header, describe_misfit, read_header
from cdm_cli.jobs.sampling.schedule_file import choose_chain
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_part, choose_rows
from cdm_cli.names import RUNS
from cdm_cli.options.judging import ElboOptions
from cdm_cli.options.sampling import Sampling
from cdm_cli.units import format_count

ENOUGH = 1000  # images, where nothing is said


@dataclass(frozen=True)
class StageShare:
    """One stage's share of the bound: -log2 p(x_0 | z_s), summed over t > above only."""

    header: Header
    chain: Chain
    s: int | None  # of its own condition; None for a base stage
    above: int  # the s at which the next stage takes over, or 0

    @property
    def resolution(self) -> int:
        """The side of x_0."""
        return self.header.config.model.resolution

    @property
    def dims(self) -> int:
        """C H W, the dimensions of x_0."""
        return self.header.config.model.channels * self.resolution**2

    def count_evaluations(self, terms: int) -> int:
        """Return how many network evaluations one image takes, if so many terms are asked for."""
        there = self.chain.schedule.T - find_index(self.chain.schedule, self.above)
        return min(terms, there) if terms else there


@dataclass(frozen=True)
class ElboWork:
    """The shares of stages, from the lowest resolution up, and num images at each they take."""

    store: Store
    shares: tuple[StageShare, ...]
    split: str
    num: int
    images: dict[int, StoreImages]


def plan_work(options: ElboOptions, stack: ExitStack) -> ElboWork:
    """Decide all that headers and flags decide. The stack keeps the store open.

    Raises UsageError, MissingError, and MismatchError where stages, or stages and data, do not
    fit each other.
    """
    store = stack.enter_context(open_store(options.ref))
    headers = [read_header(find_stage(name, Path(RUNS))) for name in options.stages]
    split, part = choose_part(store, options.split)
    for header in headers:
        find_weights_file(header.directory, options.sampling.weights)
    _check_images(headers, store, options.split)
    for low, high in pairwise(headers):
        _check_pair(low, high)
    given = _choose_each_s(headers, options.s)
    above = [s or 0 for s in given[1:]] + [0]
    for (low, high), s in zip(pairwise(headers), above, strict=False):
        _check_process(low, high, s)
    shares = [
        _plan_share(header, options.sampling, s, t)
        for header, s, t in zip(headers, given, above, strict=True)
    ]
    store.require_finished()
    num = min(part.num, ENOUGH) if options.num is None else options.num
    rows = choose_rows(store, part, num)
    sides = {side for header in headers for side in _list_sides(header)}
    images = {side: StoreImages(part, side, rows) for side in sides}
    return ElboWork(store, tuple(shares), split, num, images)


def _plan_share(header: Header, sampling: Sampling, s: int | None, above: int) -> StageShare:
    """Return a stage's share of the bound; its chain steps on the time where the next begins."""
    chain = choose_chain(
        header, _settle_sampling(header, sampling), visit=(above,) if above else ()
    )
    return StageShare(header, chain, s, above)


def _list_sides(header: Header) -> list[int]:
    """Return the resolutions that a stage takes images of."""
    conditioning = header.config.conditioning
    return [header.config.model.resolution, *([conditioning.resolution] if conditioning else [])]


def _check_images(headers: Sequence[Header], store: Store, split: str | None) -> None:
    """Raise MismatchError unless the store has the images and classes of all stages."""
    if reason := _find_misfit(headers, split, store):
        raise MismatchError(
            reason,
            next=advise_store(
                "--ref", store.path, lambda other: not _find_misfit(headers, split, other),
                "another --ref, or cdm prepare with the stage's resolutions", kind="prepared",
            ),
        )  # fmt: skip


def _find_misfit(headers: Sequence[Header], split: str | None, store: Store) -> str:
    """Return the first stage that a split of a store does not fit, and why; "" if it fits all."""
    part = choose_part(store, split)[1]
    for header in headers:
        faults = (describe_misfit(header, store, part, side) for side in _list_sides(header))
        if reason := next(filter(None, faults), ""):
            return f"{header.directory} and {store.path} do not fit: {reason}"
    return ""


def _check_pair(low: Header, high: Header) -> None:
    """Raise MismatchError unless high starts from what low makes."""
    conditioning, made = high.config.conditioning, low.config.model.resolution
    if conditioning is None or conditioning.resolution != made:
        side = conditioning.resolution if conditioning else 0
        starts = f"starts from {side}×{side}" if side else "is a base stage"
        raise MismatchError(
            f"{low.directory} makes {made}×{made}, {high.directory} {starts}",
            next="cdm eval elbo base sr: the stages of one cascade, from its base up",
        )


def _choose_each_s(headers: Sequence[Header], s: Sequence[int]) -> list[int | None]:
    """Return the s of each stage's condition; raise UsageError for a wrong number or value."""
    above_base = [header for header in headers if header.config.kind == "sr"]
    if len(s) > len(above_base):
        raise UsageError(
            f"--s {','.join(map(str, s))}: {format_count(len(s), 'time')} for "
            f"{format_count(len(above_base), 'super-resolution stage')}",
            next=_advise_each_s(above_base, s),
        )
    told = [*s, *[None] * (len(above_base) - len(s))]
    pairs = list(zip(above_base, told, strict=True))
    try:
        checked = [check_s(header.config, value) for header, value in pairs]
    except UsageError as error:
        if len(pairs) == 1:
            raise
        raise UsageError(error.what, next=_advise_each_s(above_base, told)) from None
    return [*[None] * (len(headers) - len(checked)), *checked]


def _advise_each_s(above_base: Sequence[Header], told: Sequence[int | None]) -> str:
    """Return the list nearest to what was told: one s for each stage that takes one."""
    if not above_base:
        return "leave out --s"
    pairs = zip(above_base, told, strict=False)  # of told there may be too many
    near = (find_nearest_s(header.conditioning, s) for header, s in pairs)
    return f"--s {','.join(map(str, near))}: one for each super-resolution stage"


def _check_process(low: Header, high: Header, s: int) -> None:
    """Raise MismatchError unless both mean the same noise by s: else Eq. 3 has no z_s."""
    ours = from_config(low.config.schedule).alpha_bar
    theirs = from_config(high.conditioning.z_schedule).alpha_bar
    if s >= len(ours) or abs(ours[s] - theirs[s]) > 1e-9:
        raise MismatchError(
            f"{low.directory} has another noise schedule at s = {s} than {high.directory} was "
            "trained to expect, so the cascade cannot be split there",
            next="bound each stage alone",
        )


def _settle_sampling(header: Header, sampling: Sampling) -> Sampling:
    """Return how the bounded chain runs: ancestral, over all T unless steps are asked for."""
    if sampling.sampler not in (None, "ancestral") or sampling.restart_from:
        raise UsageError(
            "eval elbo: only ancestral sampling from x_T to x_0 has a likelihood to bound",
            next="leave out sampler and restart_from",
        )
    variance = sampling.variance or (header.config.variance if not sampling.schedule else None)
    steps = 0 if sampling.steps is None and not sampling.schedule else sampling.steps
    return replace(sampling, sampler="ancestral", variance=variance, steps=steps)
