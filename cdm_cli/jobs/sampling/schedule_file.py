"""`schedule.json`: what `tune-schedule` found, and what `--schedule` takes (Section 4.4)."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cdm_cli.cascade.chain import Chain, build_chain
from cdm_cli.cascade.stagefile import compute_stage_digest, read_settings
from cdm_cli.errors import MismatchError, MissingError, UsageError
from cdm_cli.jobs.runtime.same_stage import is_digest_of
from cdm_cli.jobs.sampling.headers import Header, read_weights_digest
from cdm_cli.names import Sampler, Variance
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.settings import Settings

LIMIT = 2**22
FreshBy = Literal["images", "noise"]
Named = Literal["reference", "uniform", "elbo", "linear", "tuned"]
KEPT = "schedules"  # of a stage's directory
KEPT_NAME = re.compile(r"steps-(\d{1,6})\.json")


class Gain(Settings):
    """What a schedule gains, on `num` images that did not choose it: other ids, or other noise.

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


class Compared(Settings):
    """FID of one schedule on images that chose none, beside the reference of many steps.

    difference: how much higher than the reference, both less their biases, paired, with its
    standard error; verdict: "better", "worse" or "not told apart". None where not known.
    """

    name: Named
    num: int
    fid: float
    error: float | None
    difference: float | None
    uncertainty: float | None
    verdict: str | None


class Searched(Settings):
    """The best schedule found for one number of steps.

    times: of training, decreasing; stochasticity: of the step from each, 0 as DDIM, 1 as ancestral
    (None: the sampler has its own). Or alpha_bar, for a stage that is fed the noise level.

    score and baseline: the metric of this schedule and of the stage's own, respaced to as many
    steps, on the same samples. beta_1, beta_T: ends of the linear schedule, if it is one. gain:
    None where no trial beat the baseline, or where an earlier version searched.
    """

    steps: int = Field(ge=1)
    sampler: Sampler = "ancestral"
    variance: Variance
    beta_1: float | None = None
    beta_T: float | None = None  # noqa: N815
    alpha_bar: tuple[float, ...] | None = Field(default=None, min_length=1)
    times: tuple[int, ...] | None = Field(default=None, min_length=1)
    stochasticity: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    score: float
    baseline: float
    trials: int
    gain: Gain | None = None
    compared: tuple[Compared, ...] = ()

    @model_validator(mode="after")
    def _is_a_way_down(self) -> Self:
        if (self.alpha_bar is None) == (self.times is None):
            raise ValueError("a schedule has times or alpha_bar, one of both")
        times = self.times or ()
        if any(after >= before for before, after in pairwise(times)) or (times and times[-1] < 1):
            raise ValueError("times must decrease, down to 1 at most")
        k = self.stochasticity
        if k is not None and (len(k) != len(times) or self.sampler not in ("ddim", "dpm-solver++")):
            raise ValueError("stochasticity belongs to times of ddim or dpm-solver++, one to each")
        return self


class ScheduleFile(Settings):
    """The contents of `schedule.json`: the schedules, and all they were judged by.

    Version 1 knew alpha_bar alone. lowres "" and s None: of a base stage. clip: whether trials
    clipped the predicted x_0; None: an earlier version searched, and did not say.
    """

    schema_version: Literal[1, 2] = 2
    cdm_version: str
    stage: str
    stage_digest: str
    config_digest: str
    lowres: str
    lowres_digest: str
    metric: str
    convention: dict[str, str | int | float | None]
    s: int | None
    num: int
    seed: int
    clip: bool | None = None
    schedules: tuple[Searched, ...] = Field(min_length=1)


def read_schedules(path: Path) -> ScheduleFile:
    """Read a file of schedules. Raises MissingError, and BadInputError for any other file."""
    return read_settings(ScheduleFile, path, LIMIT, next="a file that cdm tune-schedule wrote")


def choose_chain(
    header: Header, sampling: Sampling, keep: Sequence[int] = (), visit: Sequence[int] = ()
) -> Chain:
    """Fix sampler, times and variance of a stage: those of a schedule, or as the flags say.

    The schedule is that of `--schedule`, of several in the file that of `--steps` or else of the
    best score; another `--sampler` walks its times. Without `--schedule` it is the one that the
    stage keeps for `--steps N`, if no `--sampler`, `--variance` or `--restart-from` is given.
    Without any, what the flags leave open is the stage's default, and its times are spread evenly,
    those of an imported stage as its package spreads them (`build_chain`). keep: times whose states
    are kept; visit: times that become steps. Raises UsageError, MismatchError where the schedule
    was searched for another stage, and what reading the file raises.
    """
    path = find_schedule(header, sampling)
    if path is None:
        return build_chain(header.config, sampling, keep=keep, visit=visit)
    file = read_schedules(path)
    if not is_digest_of(header.config, file.config_digest):
        raise MismatchError(
            f"{path} was searched for the stage {file.stage!r}, whose configuration "
            f"is not that of {header.directory}",
            kept="no output was made",
            next="cdm tune-schedule for this stage",
        )
    found = choose_schedule(file, sampling.steps, path)
    sampler = sampling.sampler or found.sampler
    variance = sampling.variance or (found.variance if sampler == "ancestral" else None)
    asked = replace(sampling, steps=None, sampler=sampler, variance=variance)
    return build_chain(
        header.config,
        asked,
        keep=keep,
        visit=visit,
        alpha_bar=found.alpha_bar,
        times=found.times,
        stochasticity=found.stochasticity if sampler == found.sampler else None,
    )


def list_kept_steps(directory: Path) -> list[int]:
    """Return the numbers of steps for which a stage keeps a schedule, by the names of its files."""
    found = (KEPT_NAME.fullmatch(path.name) for path in (directory / KEPT).glob("*.json"))
    return sorted(int(name[1]) for name in found if name)


def place_schedule(header: Header, steps: int) -> Path:
    """Return where a stage keeps its schedule of so many steps (`tune-schedule --apply`)."""
    return header.directory / KEPT / f"steps-{steps}.json"


def find_schedule(header: Header, sampling: Sampling) -> Path | None:
    """Return the file of `--schedule`, or the one that the stage keeps for `--steps N` alone.

    A sampler, a variance or a restart that is asked for beside the steps means evenly spread ones.
    """
    if sampling.schedule is not None:
        return sampling.schedule
    asked = sampling.sampler or sampling.variance or sampling.restart_from
    if not sampling.steps or asked:
        return None
    path = place_schedule(header, sampling.steps)
    return path if path.is_file() else None


def tell_schedule(
    header: Header, sampling: Sampling, s: Sequence[int | None], report: Report
) -> None:
    """Say which kept schedule is used, and where its search had other s, weights or clipping."""
    path = find_schedule(header, sampling)
    if path is None:
        return
    if sampling.schedule is None:
        report.say(f"--steps {sampling.steps}: on the schedule that is kept in {path}")
    searched = read_schedules(path)
    others = [at for at in dict.fromkeys(s) if at is not None and at != searched.s]
    if others:
        report.say(
            f"{path} was searched at s = {searched.s}, this is at s = "
            f"{', '.join(map(str, others))}: another schedule may be better there "
            "(cdm tune-schedule --s)"
        )
    if searched.clip not in (None, sampling.clip):
        flag, now = ("--clip", "--no-clip") if searched.clip else ("--no-clip", "--clip")
        report.say(
            f"{path} was searched with {flag}, this is with {now}: {flag} takes it as it was found"
        )
    with suppress(MissingError):
        weights = read_weights_digest(header.directory, sampling.weights)
        if compute_stage_digest(header.config, weights) != searched.stage_digest:
            report.say(
                f"{path} was searched with other weights than {sampling.weights} of "
                f"{header.directory}: another schedule may be better (cdm tune-schedule)"
            )


def choose_schedule(file: ScheduleFile, steps: int | None, path: Path) -> Searched:
    """Return the schedule of so many steps, or that of the best score where none is named."""
    if steps is None:
        return min(file.schedules, key=lambda found: found.score)
    for found in file.schedules:
        if found.steps == steps:
            return found
    there = ", ".join(str(found.steps) for found in file.schedules)
    nearest = min((found.steps for found in file.schedules), key=lambda has: abs(has - steps))
    raise UsageError(
        f"--steps {steps}: {path} has schedules of {there} steps", next=f"--steps {nearest}"
    )
