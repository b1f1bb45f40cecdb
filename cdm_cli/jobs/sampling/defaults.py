"""What `cdm upsample` does with a stage unless told otherwise: its own, or what a search found.

`sweep-s --apply` adds what it found to `stage.json`, beside the configuration, which stays what it
was: digests, stores, sweeps and curves of the stage do not change. Searches take the stage's own
defaults. `cdm defaults` shows both, and goes back.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.stagefile import find_stage, read_stage_file, write_stage_file
from cdm_cli.errors import MismatchError, UsageError, quote
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.sampling.headers import Header, read_header, read_weights_digest
from cdm_cli.jobs.sampling.schedule_file import find_schedule, list_kept_steps
from cdm_cli.names import RUNS
from cdm_cli.options.sampling import Sampling, UpsampleOptions
from cdm_cli.options.workspace import DefaultsOptions
from cdm_cli.plans import Applied, StageFile
from cdm_cli.report import Report
from cdm_cli.units import format_count

KEPT = "its defaults are what they were"


class Choice(NamedTuple):
    """One that was applied, by its number, in a few words."""

    number: int
    in_force: bool
    takes: str
    by: str
    found: str


@dataclass(frozen=True)
class Defaults:
    """What a stage is upsampled with unless told otherwise, and what was applied to it, in order.

    s None: it must be told. in_force: the number of what was applied, 0 for the stage's own.
    schedules: the numbers of steps that `--steps` takes a schedule for, which tune-schedule kept.
    """

    stage: Path
    s: int | None
    augment: str | None
    sampler: str
    steps: int
    variance: str
    in_force: int
    unshown: ClassVar = ("in_force",)  # of a person: the rows of `applied` say it
    schedules: list[int]
    applied: list[dict[str, Any]]


def run(options: DefaultsOptions, report: Report) -> Defaults:
    """Show the defaults of a stage; with `take` make one of those that were applied the default.

    Raises MissingError, MismatchError for a classifier, UsageError for a number that there is not,
    and StoppedError while the stage is being trained.
    """
    directory = find_stage(options.stage, Path(RUNS))
    found = find_defaults(read_header(directory))
    return found if options.take is None else _take(directory, options.take, report)


def _take(directory: Path, number: int, report: Report) -> Defaults:
    with hold_lock(directory):
        file = read_stage_file(directory)
        if number > len(file.applied):
            raise UsageError(
                f"--take {number}: {format_count(len(file.applied), 'setting', 'were')} applied "
                f"to {directory}",
                kept=KEPT,
                next=f"cdm defaults {quote(directory)}, which lists them",
            )
        _put_in_force(directory, file, number)
    return _tell_change(directory, file.in_force, report)


def _put_in_force(directory: Path, file: StageFile, number: int) -> None:
    if file.in_force != number:
        write_stage_file(directory, file.model_copy(update={"in_force": number}))


def find_defaults(header: Header) -> Defaults:
    """Return what is in force for a stage."""
    now = header.default
    chain = build_chain(header.config, _fill_in(Sampling(), now))
    conditioning = header.config.conditioning
    blind = conditioning is not None and not conditioning.gaussian  # takes no s but 0
    rows = [
        Choice(at, at == header.in_force, describe_applied(one), one.by, one.found)._asdict()
        for at, one in enumerate(header.applied, 1)
    ]
    return Defaults(
        stage=header.directory,
        s=now.s if now else 0 if blind else None,
        augment=now.augment if now else None if conditioning is None else "non-truncated",
        sampler=chain.sampler,
        steps=chain.schedule.T,
        variance=chain.variance,
        in_force=header.in_force,
        schedules=list_kept_steps(header.directory),
        applied=rows,
    )


def fill_defaults(
    options: UpsampleOptions, header: Header, applied: Applied | None
) -> UpsampleOptions:
    """Return the options with what was applied to a stage in place of what they leave out.

    applied: s, augment, sampler, steps and variance that `sweep-s --apply` made the defaults of
    `cdm upsample`; None: the stage's own, which change nothing here. augment is taken only together
    with s; steps and variance are not with another sampler, and none of the three is with a
    schedule: that of `--schedule`, or the one that the stage keeps for `--steps`.
    """
    if applied is None:
        return options
    s, augment = options.s, options.augment
    if s is None:
        s, augment = applied.s, augment or applied.augment
    kept = find_schedule(header, options.sampling) is not None
    sampling = options.sampling if kept else _fill_in(options.sampling, applied)
    return replace(options, s=s, augment=augment, sampling=sampling)


def _fill_in(asked: Sampling, applied: Applied | None) -> Sampling:
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
    """Report the applied settings that are used where no flag was given."""
    now = header.default
    if now is None or fill_defaults(options, header, now) == options:
        return
    weights, others = options.sampling.weights, ""
    if now.weights and now.weights != read_weights_digest(header.directory, weights):
        others = f" for other weights than {weights} of now"
    report.say(
        f"upsample: {describe_applied(now)} where nothing else is asked, which {now.by} "
        f"found{others} (cdm defaults {quote(header.directory)})"
    )


def describe_applied(applied: Applied) -> str:
    """Return what was applied in a few words: `s = 501, ddim, 8 steps`."""
    steps = applied.steps
    told = [
        f"s = {applied.s}" + (" truncated" if applied.augment == "truncated" else ""),
        applied.sampler or "",
        "" if steps is None else "all steps" if not steps else format_count(steps, "step"),
        f"variance {applied.variance}" if applied.variance else "",
    ]
    return ", ".join(filter(None, told))


def apply(directory: Path, found: Applied, weights_digest: str, report: Report) -> Defaults:
    """Make the settings that a search found the defaults of `cdm upsample` for a stage.

    weights_digest: of those that it was found with. Raises MismatchError where the stage was
    trained on since, and StoppedError while it is.
    """
    with hold_lock(directory):
        file = read_stage_file(directory)
        if read_weights_digest(directory) != weights_digest:
            raise MismatchError(
                f"--apply: {directory} was trained on since {describe_applied(found)} was found",
                kept=KEPT,
                next="the same search with another -o",
            )
        found = found.model_copy(update={"weights": weights_digest})
        there = file.applied if found in file.applied else (*file.applied, found)
        with_it = file.model_copy(update={"applied": there})
        _put_in_force(directory, with_it, there.index(found) + 1)
    return _tell_change(directory, file.in_force, report)


def _tell_change(directory: Path, before: int, report: Report) -> Defaults:
    """Say what is in force now, what was, and how to go back there."""
    header = read_header(directory)
    now, was = find_defaults(header), find_defaults(replace(header, in_force=before))
    report.say(f"{directory}: cdm upsample takes {_describe(now)} unless told otherwise")
    if now.in_force != before:
        back = f"cdm defaults {quote(directory)} --take {before} goes back"
        report.say(f"before: {_describe(was)}; {back}")
    return now


def _describe(defaults: Defaults) -> str:
    s = "no s (--s says it)" if defaults.s is None else f"s = {defaults.s}"
    kind = " truncated" if defaults.augment == "truncated" else ""
    return f"{s}{kind}, {defaults.sampler}, {format_count(defaults.steps, 'step')}"
