"""How a stage is sampled, fixed from its configuration before any weights are loaded.

A `Chain` is one way down from x_T to x_0 (Sections 2.1, 4.2, 4.4). Times that a user gives or reads
(keep, restart_from) are those of the process that the stage was trained on, however few of them a
respaced chain visits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdm_cli.config import StageConfig
from cdm_cli.diffusion.between import Rule, choose_rule
from cdm_cli.diffusion.reverse import Fraction
from cdm_cli.diffusion.samplers import RandnLike, Sample, bind
from cdm_cli.diffusion.schedules import (
    Schedule,
    find_index,
    from_alpha_bar,
    from_config,
    list_openai_times,
    respace,
    spread_schedule,
)
from cdm_cli.errors import UsageError
from cdm_cli.names import Sampler, Variance
from cdm_cli.options.sampling import Sampling

ENOUGH_STEPS = 250
"""For any sampler, where the steps of a stage are those of another one (docs/performance.md)."""


@dataclass(frozen=True)
class Chain:
    """A schedule and the sampler that walks it; restart_from is a time of training, 1..T.

    searched: noise levels were searched; times of this schedule are none of training (Section 4.4).
    stochasticity: of each step from x_T down, where the steps are between DDIM and ancestral ones.
    """

    schedule: Schedule
    sampler: Sampler
    variance: Variance
    fraction: Fraction
    clip: bool
    restart_from: int | None = None
    searched: bool = False
    stochasticity: tuple[float, ...] | None = None

    @property
    def evaluations(self) -> int:
        """How often the network is evaluated for one sample."""
        again = find_index(self.schedule, self.restart_from) if self.restart_from else 0
        return self.schedule.T + again

    def sample(self, randn_like: RandnLike) -> Sample:
        """Return the sampler with its settings and its source of noise."""
        return bind(
            self.sampler,
            randn_like=randn_like,
            variance=self.variance,
            fraction=self.fraction,
            clip=self.clip,
            stochasticity=self.stochasticity,
        )

    @property
    def rule(self) -> Rule:
        """The name of how a state that the chain steps over is drawn from its two neighbours."""
        return choose_rule(self.sampler, self.stochasticity)

    @property
    def stochasticity_by_time(self) -> dict[int, float]:
        """The stochasticity k of the step that leaves a time of training, by that time."""
        times, own = self.schedule.times.tolist(), float(self.rule == "bridge")
        each = [own] * self.schedule.T if self.stochasticity is None else self.stochasticity
        return dict(zip(reversed(times[1:]), each, strict=True))


def build_chain(
    config: StageConfig,
    sampling: Sampling,
    *,
    keep: Sequence[int] = (),
    visit: Sequence[int] = (),
    alpha_bar: Sequence[float] | None = None,
    times: Sequence[int] | None = None,
    stochasticity: Sequence[float] | None = None,
) -> Chain:
    """Fix how a stage is sampled: what `sampling` leaves open is the stage's own default.

    keep: times whose states are kept; they must be in 1..T and do not change the chain. visit:
    times that are added to the chain's steps. alpha_bar: a searched schedule (Section 4.4), for a
    stage that is fed the noise level itself. times: of training, instead of evenly spread ones, in
    any order; stochasticity: of each of these steps, from the highest time down. Raises UsageError
    for a time, a variance or a combination that the stage does not allow.
    """
    sampler = sampling.sampler or config.sampling.sampler
    restart_from = sampling.restart_from
    T = config.schedule.T
    _check_within("--keep-s", keep, 1, T)
    _check_within("--restart-from", [restart_from] if restart_from else [], 1, T)
    if alpha_bar is None:
        steps = _choose_steps(config, sampler) if sampling.steps is None else sampling.steps
        _check_within("--steps", [steps] if steps else [], 1, T)
        visited = [*visit, *([restart_from] if restart_from else [])]
        if stochasticity is not None and not {*visited} <= {*(times or ())}:
            raise _own_steps_error()
        schedule = _respace(config, sampling.steps, steps, sampler, visited, times)
    else:
        schedule = _take_searched(config, alpha_bar, named=bool(keep or visit or restart_from))
    return Chain(
        schedule=schedule,
        sampler=sampler,
        variance=_choose_variance(config, sampling.variance, sampler),
        fraction=config.variance_fraction,
        clip=sampling.clip,
        restart_from=restart_from,
        searched=alpha_bar is not None,
        stochasticity=None if stochasticity is None else tuple(stochasticity),
    )


def _respace(
    config: StageConfig, asked: int | None, steps: int | None, sampler: Sampler,
    visited: Sequence[int], times: Sequence[int] | None,
) -> Schedule:  # fmt: skip
    """Return the schedule of training at the times that are given, or at evenly spread ones."""
    whole = from_config(config.schedule)
    if times is not None:
        _check_times(times, whole.T)
        return respace(whole, torch.tensor(sorted({*times, *visited} - {0})))
    imported = _choose_times(config, asked, steps, sampler)
    return spread_schedule(whole, steps, visited, sampler, imported)


def _own_steps_error() -> UsageError:
    return UsageError(
        "--restart-from: each step of the schedule has a stochasticity of its own, and that time "
        "is none of its steps",
        next="leave out --restart-from, or name a sampler for the times of the schedule: "
        "--sampler ancestral",
    )


def _choose_times(
    config: StageConfig, asked: int | None, steps: int | None, sampler: Sampler
) -> Tensor | None:
    """Return the times that openai's packages would keep, for a stage that was imported from them.

    asked: of --steps; None: the respacing that came with the stage. None for other stages, and
    for samplers that those packages do not have.
    """
    own = config.sampling
    if own.respacing is None or sampler not in ("ancestral", "ddim") or not steps:
        return None
    as_it_came = asked is None and steps == own.steps
    return list_openai_times(config.schedule.T, own.respacing if as_it_came else str(steps))


def _choose_steps(config: StageConfig, sampler: Sampler) -> int | None:
    """Return the stage's own steps, which are enough for its own sampler."""
    own = config.sampling
    if own.steps is None or sampler == own.sampler:
        return own.steps
    return min(config.schedule.T, max(own.steps, ENOUGH_STEPS))


def _check_within(flag: str, values: Sequence[int], low: int, high: int) -> None:
    for value in values:
        if not low <= value <= high:
            raise UsageError(
                f"{flag} {value}: the stage has times {low}..{high}",
                kept="nothing was made",
                next=f"{flag} with one of these",
            )


def _check_times(times: Sequence[int], T: int) -> None:
    if not 1 <= min(times) <= max(times) <= T:
        raise UsageError(
            f"--schedule: it has times {min(times)}..{max(times)}, the stage 1..{T}",
            kept="nothing was made",
            next="a file that cdm tune-schedule wrote for this stage",
        )


def _take_searched(config: StageConfig, alpha_bar: Sequence[float], *, named: bool) -> Schedule:
    if config.time_input == "t":
        raise UsageError(
            "--schedule: the stage is fed t, not the noise level, and knows its own schedule only",
            next="--steps N respaces it",
        )
    if named:
        raise UsageError(
            "--restart-from and --keep-s name times of training, and a searched schedule has "
            "none of them",
            next="leave out --schedule, or the other flag",
        )
    return from_alpha_bar(torch.tensor(list(alpha_bar), dtype=torch.float64))


def _choose_variance(config: StageConfig, asked: Variance | None, sampler: Sampler) -> Variance:
    if asked and sampler != "ancestral":
        raise UsageError(
            f"--variance {asked}: {sampler} leaves no choice of variance",
            next="--sampler ancestral",
        )
    if sampler != "ancestral":
        return "small"
    if asked == "learned" and config.variance != "learned":
        raise UsageError(
            "--variance learned: the stage did not learn one", next="--variance small or large"
        )
    return asked or config.sampling.variance or config.variance
