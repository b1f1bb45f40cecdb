"""`schedule.json`: what `tune-schedule` found, and what `--schedule` takes (Section 4.4)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from cdm_cli.cascade.generate import Chain, chain_of
from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.runtime.same_stage import is_of
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.names import Sampler, Variance
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.settings import Settings

LIMIT = 2**22
FreshBy = Literal["images", "noise"]


class Gain(Settings):
    """What a schedule gains, on `num` images that did not choose it, of other ids or other noise.

    score and baseline: FID of the schedule and of the stage's own. gain: baseline minus score,
    less their biases, with its standard error. verdict: "better", "worse" or "not told apart".
    """

    steps: int
    fresh: FreshBy
    num: int
    score: float
    baseline: float
    gain: float
    uncertainty: float | None
    verdict: str | None


class Searched(Settings):
    """The best schedule found for one number of steps.

    score and baseline: the metric of this schedule and of the stage's own, respaced to as many
    steps, on the same samples. beta_1, beta_T: ends of the linear schedule, if it is one. gain:
    None where no trial beat the baseline, or where an earlier version searched.
    """

    steps: int = Field(ge=1)
    sampler: Sampler = "ancestral"
    variance: Variance
    beta_1: float | None = None
    beta_T: float | None = None  # noqa: N815
    alpha_bar: tuple[float, ...] = Field(min_length=1)
    score: float
    baseline: float
    trials: int
    gain: Gain | None = None


class ScheduleFile(Settings):
    """The contents of `schedule.json`: the schedules, and all they were judged by."""

    schema_version: Literal[1] = 1
    cdm_version: str
    stage: str
    stage_digest: str
    config_digest: str
    lowres: str
    lowres_digest: str
    metric: str
    convention: dict[str, str | int | float | None]
    s: int
    num: int
    seed: int
    schedules: tuple[Searched, ...] = Field(min_length=1)


def chain_for(
    header: Header, sampling: Sampling, keep: Sequence[int] = (), visit: Sequence[int] = ()
) -> Chain:
    """Fix the chain of a stage, on the schedule of `--schedule` if that is given.

    Raises UsageError, MismatchError where the schedule was searched for another stage, and
    what reading the file raises.
    """
    if sampling.schedule is None:
        return chain_of(header.config, sampling, keep=keep, visit=visit)
    file = read_settings(ScheduleFile, sampling.schedule, LIMIT)
    if not is_of(header.config, file.config_digest):
        raise MismatchError(
            f"{sampling.schedule} was searched for the stage {file.stage!r}, whose configuration "
            f"is not that of {header.directory}",
            kept="no output was made",
            next="cdm tune-schedule for this stage",
        )
    found = choose_schedule(file, sampling.steps, sampling.schedule)
    sampler = sampling.sampler or found.sampler
    variance = sampling.variance or (found.variance if sampler == "ancestral" else None)
    asked = replace(sampling, steps=None, sampler=sampler, variance=variance)
    return chain_of(header.config, asked, keep=keep, visit=visit, alpha_bar=found.alpha_bar)


def tell_other_s(sampling: Sampling, s: Sequence[int], report: Report) -> None:
    """Say where a schedule is used at another s than that at which it was searched."""
    if sampling.schedule is None:
        return
    searched = read_settings(ScheduleFile, sampling.schedule, LIMIT).s
    others = [at for at in dict.fromkeys(s) if at != searched]
    if others:
        report.say(
            f"{sampling.schedule} was searched at s = {searched}, this is at s = "
            f"{', '.join(map(str, others))}: another schedule may be better there "
            "(cdm tune-schedule --s)"
        )


def choose_schedule(file: ScheduleFile, steps: int | None, path: Path) -> Searched:
    """Return the schedule of so many steps, or that of the best score where none is named."""
    if steps is None:
        return min(file.schedules, key=lambda found: found.score)
    for found in file.schedules:
        if found.steps == steps:
            return found
    there = ", ".join(str(found.steps) for found in file.schedules)
    raise UsageError(
        f"--steps {steps}: {path} has schedules of {there} steps", next="choose one of these"
    )
