"""`cdm tune-schedule`: the best linear noise schedule for few steps (Section 4.4, Figure 8).

For each number of steps, schedules are tried on the same images with the same noise, and ranked
by FID against train. The baseline is the stage's own schedule, respaced to as many steps; where
no trial beats it, it is what is written. What the best gains is judged once more, on images that
did not choose it. Every trial is logged as it ends, so the same command
continues where it stopped; other numbers of steps under the same -o join those there.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.generate import Chain
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.runtime.same_stage import config_digest
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.cost import cost
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile, Searched
from cdm_cli.jobs.tune.gain import (
    best_of,
    candidate_of,
    concluded,
    gains_left,
    judge_gain,
)
from cdm_cli.jobs.tune.judge import Scorer, head_of, numerics_of, opened
from cdm_cli.jobs.tune.log import Log, Trial, add, begin, check_same, locked, log_path, read_log
from cdm_cli.jobs.tune.plan import Search, planned
from cdm_cli.jobs.tune.search import Candidate, proposed
from cdm_cli.options.judging import TuneOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class Found:
    """The best schedule of so many steps, as a line of the table.

    gain: of FID, in percent, on the images that chose it. fresh_gain: of FID, on others, with its
    standard error, and whether that is certain (`verdict`); None where that is not known.
    """

    steps: int
    fid: float
    baseline: float
    gain: float
    beta_1: float | None
    beta_T: float | None  # noqa: N815
    alpha_bar_T: float  # noqa: N815
    variance: str
    trials: int
    fresh_gain: float | None
    uncertainty: float | None
    verdict: str | None


@dataclass(frozen=True)
class TuneResult:
    """What was found, and where it is. schedules: of every number of steps in the file."""

    out: Path
    log: Path
    metric: str
    num: int
    conclusion: str
    schedules: tuple[Found, ...]


def run(options: TuneOptions, report: Report) -> TuneResult:
    """Try what was not tried yet, and write the best schedule of each number of steps.

    Raises MismatchError for a stage without continuous noise conditioning, UsageError,
    MissingError for what does not fit, before any weights are loaded; WouldOverwriteError
    where options.out is of another search; StoppedError, DiskError.
    """
    return start_job(run_in, options, options.judge.compute, report)


def run_in(options: TuneOptions, session: Session) -> TuneResult:
    """Search as one process of a job."""
    log = log_path(options.out)
    with ExitStack() as stack:
        search, before = session.decide(lambda: _begun(options, stack), _deciding)
        session.check_shared(options.out)
        left = left_of(options, search, before.trials if before else [])
        if any(left.values()) or gains_left(before, left):
            scorer = opened(options, search, session, before.head if before else None)
            session.lead(lambda: begin(log, head_of(scorer)))
            session.lead(lambda: stack.enter_context(locked(log)))
            for steps in search.works:
                _search(options, scorer, steps, log)
                _gain(options, scorer, steps, log)
                session.lead(lambda: _write(options, search, log))
        file = _write(options, search, log) if session.world.leads else _file(search, log)
    return _result(options, log, file)


def _begun(options: TuneOptions, stack: ExitStack) -> tuple[Search, Log | None]:
    """Return the search, and what is there of it."""
    search = planned(options, stack)
    check_same(options.out, search.identity, search.header.config)
    return search, read_log(log_path(options.out))


def _deciding(begun: tuple[Search, Log | None]) -> dict[str, Any]:
    """Return what must be equal in every process."""
    search, log = begun
    return {
        **search.identity,
        "steps": list(search.works),
        "trials made": len(log.trials) if log else 0,
        "gains judged": list(log.gains) if log else [],
    }


def left_of(options: TuneOptions, search: Search, trials: Sequence[Trial]) -> dict[int, int]:
    """Return how many trials are still to be made, the baseline among them, by steps."""
    return {
        steps: 1 + options.trials - sum(trial.steps == steps for trial in trials)
        for steps in search.works
    }


def plan(options: TuneOptions, report: Report) -> dict[str, object]:
    """Return the searches and what they would cost; nothing is loaded or written."""
    with ExitStack() as stack:
        search = planned(options, stack)
        check_same(options.out, search.identity, search.header.config)
    log = read_log(log_path(options.out))
    session = plan_session(options.judge.compute, report)
    numerics_of(options, search, log.head if log else None, session)
    left = left_of(options, search, log.trials if log else [])
    gains = 2 * len(search.fresh.ids) * sum(gains_left(log, left))
    evaluations = options.num * sum(steps * trials for steps, trials in left.items()) + gains
    one = cost(search.header.config, search.work.chain, 1, options.judge.compute)
    flops = int(str(one["flops_per_image"])) * evaluations
    seconds = float(str(one["estimated_seconds"])) / search.work.chain.evaluations * evaluations
    return {
        "stage": str(search.header.directory),
        "out": str(options.out),
        "samples": options.num,
        "trials": sum(left.values()),
        **{name: one[name] for name in ("parameters", "flops_per_image", "batch_size")},
        "network_evaluations": evaluations,
        "flops": flops,
        **{name: one[name] for name in ("device", "precision")},
        "estimated_seconds": round(seconds, 1),
        "searches": [{"steps": steps, "trials": trials} for steps, trials in left.items()],
    }


def _search(options: TuneOptions, scorer: Scorer, steps: int, log: Path) -> None:
    """Make the trials of one number of steps that are missing."""
    session = scorer.panel.session
    for number in range(options.trials + 1):
        trials = trials_of(log, steps)
        if number < len(trials):
            continue
        what = f"{steps} steps, trial {number} of {options.trials}"
        candidate = _next(options, scorer.search, steps, trials)
        chain = scorer.search.chain(candidate) if candidate else scorer.search.baseline(steps)
        trial = _trial(steps, number, candidate, chain, scorer.fid(chain, what))
        session.lead(lambda trial=trial: add(log, trial))
        session.report.say(f"tune-schedule: {what}: {_in_short(trial)}")


def _gain(options: TuneOptions, scorer: Scorer, steps: int, log: Path) -> None:
    """Judge what the best of the trials gains, if that is missing."""
    found = read_log(log)
    left = left_of(options, scorer.search, found.trials if found else [])
    if found is None or steps not in gains_left(found, {steps: left[steps]}):
        return
    gain = judge_gain(scorer, steps, found.of(steps))
    scorer.panel.session.lead(lambda: add(log, gain))


def _next(
    options: TuneOptions, search: Search, steps: int, trials: Sequence[Trial]
) -> Candidate | None:
    """Return what is to be tried after these trials; None: the baseline."""
    if not trials:
        return None
    scored = [(trial.place, trial.fid) for trial in trials if trial.place is not None]
    seed = options.sampling.seed
    return proposed(search.space(steps), len(trials), options.trials, scored, seed)


def _trial(steps: int, number: int, candidate: Candidate | None, chain: Chain, fid: float) -> Trial:
    told = Trial(steps=steps, number=number, origin="baseline", variance=chain.variance, fid=fid)
    if candidate is None:
        return told
    names = ("origin", "place", "beta_1", "beta_T")
    return told.model_copy(update={name: getattr(candidate, name) for name in names})


def _in_short(trial: Trial) -> str:
    how = f", beta {trial.beta_1:.2g}..{trial.beta_T:.2g}" if trial.place else ""
    return f"FID {trial.fid:.4g} ({trial.origin}{how}, {trial.variance})"


def trials_of(log: Path, steps: int) -> list[Trial]:
    """Return the trials of one number of steps, in order."""
    found = read_log(log)
    return found.of(steps) if found else []


def _write(options: TuneOptions, search: Search, log: Path) -> ScheduleFile:
    """Write the schedules that are known so far."""
    file = _file(search, log)
    write_file_atomically(options.out, (file.model_dump_json(indent=1) + "\n").encode())
    return file


def _file(search: Search, log: Path) -> ScheduleFile:
    """Return the best schedule of each number of steps whose search is complete."""
    found = read_log(log)
    assert found is not None
    head = found.head
    all_steps = sorted({trial.steps for trial in found.trials})
    complete = 1 + int(search.identity["trials"])
    return ScheduleFile(
        cdm_version=__version__,
        stage=head.stage,
        stage_digest=head.stage_digest,
        config_digest=config_digest(search.header.config),
        lowres=search.lowres,
        lowres_digest=search.identity["lowres"],
        metric=f"fid vs {head.reference}",
        convention=head.convention,
        s=search.identity["s"],
        num=len(search.ids),
        seed=search.sampling.seed,
        schedules=tuple(
            _searched(search, steps, found)
            for steps in all_steps
            if len(found.of(steps)) == complete
        ),
    )


def _searched(search: Search, steps: int, log: Log) -> Searched:
    """Return the trial of the lowest FID as a schedule."""
    trials = log.of(steps)
    best, baseline = best_of(trials), search.baseline(steps)
    candidate = candidate_of(search, steps, best)
    own = tuple(baseline.schedule.alpha_bar[1:].tolist())
    alpha_bar = candidate.alpha_bar if candidate else own
    return Searched(
        steps=steps,
        sampler=baseline.sampler,
        variance=best.variance,
        beta_1=best.beta_1,
        beta_T=best.beta_T,
        alpha_bar=alpha_bar,
        score=best.fid,
        baseline=trials[0].fid,
        trials=len(trials) - 1,
        gain=log.gains.get(steps),
    )


def _result(options: TuneOptions, log: Path, file: ScheduleFile) -> TuneResult:
    found = tuple(
        Found(
            steps=one.steps,
            fid=one.score,
            baseline=one.baseline,
            gain=100 * (1 - one.score / one.baseline) if one.baseline else 0.0,
            beta_1=one.beta_1,
            beta_T=one.beta_T,
            alpha_bar_T=one.alpha_bar[-1],
            variance=one.variance,
            trials=one.trials,
            fresh_gain=one.gain.gain if one.gain else None,
            uncertainty=one.gain.uncertainty if one.gain else None,
            verdict=one.gain.verdict if one.gain else None,
        )
        for one in file.schedules
    )
    conclusion = " ".join(concluded(one) for one in file.schedules)
    return TuneResult(options.out, log, file.metric, file.num, conclusion, found)
