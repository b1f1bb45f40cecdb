"""What `cdm upsample` does with a stage unless told otherwise: its own, or what a search found.

`sweep-s --apply` adds what it found to `stage.json`, beside the configuration, which stays what it
was: digests, stores, sweeps and curves of the stage do not change. Searches take the stage's own
defaults. `cdm defaults` shows both, and goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cdm_cli.cascade.generate import chain_of
from cdm_cli.cascade.stagefile import find_stage, read_stage_file, write_stage_file
from cdm_cli.config import Applied
from cdm_cli.errors import MismatchError, UsageError, quoted
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.sampling.headers import Header, read_header, weights_digest
from cdm_cli.jobs.sampling.schedule_file import schedule_of
from cdm_cli.names import RUNS
from cdm_cli.options.files import DefaultsOptions
from cdm_cli.options.sampling import Sampling, UpsampleOptions
from cdm_cli.report import Report

KEPT = "its defaults are what they were"


@dataclass(frozen=True)
class Defaults:
    """What a stage is upsampled with unless told otherwise, and what was applied to it, in order.

    s None: it must be told. found_by: the search, "" for the stage's own defaults.
    """

    stage: Path
    s: int | None
    augment: str | None
    sampler: str
    steps: int
    variance: str
    found_by: str
    found: str
    applied: tuple[Applied, ...]


def run(options: DefaultsOptions, report: Report) -> Defaults:
    """Show the defaults of a stage; with `undo` take back what was applied last.

    Raises MissingError, MismatchError for a classifier, UsageError where there is nothing to take
    back, and StoppedError while the stage is being trained.
    """
    directory = find_stage(options.stage, Path(RUNS))
    if options.undo:
        _undo(directory)
        report.say(f"{directory}: what was applied last is taken back")
    return defaults_of(read_header(directory))


def defaults_of(header: Header) -> Defaults:
    """Return what is in force for a stage."""
    now = header.applied[-1] if header.applied else None
    chain = chain_of(header.config, _with(Sampling(), now))
    low = header.config.conditioning
    blind = low is not None and not low.gaussian  # takes no s but 0
    return Defaults(
        stage=header.directory,
        s=now.s if now else 0 if blind else None,
        augment=now.augment if now else None if low is None else "non-truncated",
        sampler=chain.sampler,
        steps=chain.schedule.T,
        variance=chain.variance,
        found_by=now.by if now else "",
        found=now.found if now else "",
        applied=header.applied,
    )


def by_default(
    options: UpsampleOptions, header: Header, applied: Sequence[Applied]
) -> UpsampleOptions:
    """Fill in what was applied last to a stage, as far as nothing else is asked for.

    Steps that are asked for, and that the stage keeps a schedule for, come with its sampler.
    """
    if not applied:
        return options
    s, augment = options.s, options.augment
    if s is None:
        s, augment = applied[-1].s, augment or applied[-1].augment
    kept = schedule_of(header, options.sampling) is not None
    sampling = options.sampling if kept else _with(options.sampling, applied[-1])
    return replace(options, s=s, augment=augment, sampling=sampling)


def _with(asked: Sampling, applied: Applied | None) -> Sampling:
    """Return how a stage is sampled; another sampler takes steps and variance of its own."""
    if applied is None or asked.schedule is not None:
        return asked
    sampler = asked.sampler or applied.sampler
    if sampler != applied.sampler:
        return asked
    variance = asked.variance or applied.variance
    steps = applied.steps if asked.steps is None else asked.steps
    return replace(asked, sampler=sampler, steps=steps, variance=variance)


def tell_applied(options: UpsampleOptions, header: Header, report: Report) -> None:
    """Say what stands in for what was not asked."""
    if by_default(options, header, header.applied) == options:
        return
    now = header.applied[-1]
    report.say(
        f"upsample: {words_of(now)} where nothing else is asked, which {now.by} found "
        f"(cdm defaults {quoted(header.directory)})"
    )


def words_of(applied: Applied) -> str:
    """Return what was applied in a few words: `s = 501, ddim, 8 steps`."""
    steps = applied.steps
    told = [
        f"s = {applied.s}" + (" truncated" if applied.augment == "truncated" else ""),
        applied.sampler or "",
        "" if steps is None else f"{steps or 'all'} steps",
        f"variance {applied.variance}" if applied.variance else "",
    ]
    return ", ".join(filter(None, told))


def apply(directory: Path, found: Applied, weights: str, report: Report) -> Defaults:
    """Make what was found what `cdm upsample` does with a stage unless told otherwise.

    weights: the digest of those that it was found with. Raises MismatchError where the stage was
    trained on since, and StoppedError while it is.
    """
    before = defaults_of(read_header(directory))
    with hold_lock(directory):
        file = read_stage_file(directory)
        if weights_digest(directory) != weights:
            raise MismatchError(
                f"--apply: {directory} was trained on since {words_of(found)} was found",
                kept=KEPT,
                next="the same search with another -o",
            )
        if not file.applied or file.applied[-1] != found:
            applied = (*file.applied, found)
            write_stage_file(directory, file.model_copy(update={"applied": applied}))
    after = defaults_of(read_header(directory))
    report.say(f"{directory}: cdm upsample now takes {_shown(after)} unless told otherwise")
    report.say(f"before: {_shown(before)}; cdm defaults {quoted(directory)} --undo goes back")
    return after


def _shown(defaults: Defaults) -> str:
    s = "no s, it had to be told" if defaults.s is None else f"s = {defaults.s}"
    kind = " truncated" if defaults.augment == "truncated" else ""
    return f"{s}{kind}, {defaults.sampler}, {defaults.steps} steps"


def _undo(directory: Path) -> None:
    with hold_lock(directory):
        file = read_stage_file(directory)
        if not file.applied:
            raise UsageError(
                f"--undo: nothing was applied to {directory}", kept=KEPT, next="leave --undo away"
            )
        write_stage_file(directory, file.model_copy(update={"applied": file.applied[:-1]}))
