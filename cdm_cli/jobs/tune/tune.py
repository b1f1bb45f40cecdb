"""`cdm tune-schedule`: the best times and noise for few steps (Section 4.4, Figure 8).

For each number of steps, schedules are tried on the same images with the same noise, and ranked
by FID against train. The baseline is the stage's own schedule, respaced to as many steps; where
no trial beats it, it is what is written. What the best gains is judged once more, on images that
did not choose it. Every trial is logged as it ends, so the same command
continues where it stopped; other numbers of steps under the same -o join those there.

Of a free search (`free`) a schedule is any list of times with a stochasticity each; of a linear one
(`search`) it is the paper's, for stages that are fed the noise level.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cdm_cli.data.lock import hold_file
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.cost import estimate_cost
from cdm_cli.jobs.sampling.fitting import tell_stage
from cdm_cli.jobs.tune import begin as beginning
from cdm_cli.jobs.tune.begin import Beginning
from cdm_cli.jobs.tune.found import TuneResult, describe_search
from cdm_cli.jobs.tune.gain import choose_steps, judge_missing
from cdm_cli.jobs.tune.judge import Scorer, choose_trial_numerics, make_log_head, open_scorer
from cdm_cli.jobs.tune.log import (
    Log,
    append_line,
    check_same_search,
    name_log,
    read_log,
    read_method,
    read_own_log,
    start_log,
)
from cdm_cli.jobs.tune.plan import Search, plan_work
from cdm_cli.jobs.tune.result import apply_kept, make_file, write_schedules
from cdm_cli.jobs.tune.trials import count_trials_left, make_trial, summarise
from cdm_cli.options.judging import TuneOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count


def run(options: TuneOptions, report: Report) -> TuneResult:
    """Try what was not tried yet, and write the best schedule of each number of steps.

    Raises MismatchError for linear schedules of a stage without continuous noise conditioning,
    UsageError, MissingError for what does not fit, before any weights are loaded;
    WouldOverwriteError where options.out is of another search; StoppedError, DiskError.
    """
    return start_job(run_in, options, options.judge.compute, report)


def run_in(options: TuneOptions, session: Session) -> TuneResult:
    """Search as one process of a job."""
    log = name_log(options.out)
    with ExitStack() as stack:
        begun = session.decide(lambda: _begin(options, stack, session.report), _list_compared)
        search, before = begun
        session.check_shared(options.out)
        left = count_trials_left(search, before.trials if before else [])
        if any(left.values()) or choose_steps(search, before, left):
            scorer = open_scorer(options, search, session, before.head if before else None)
            session.lead(lambda: start_log(log, make_log_head(scorer)))
            session.lead(lambda: stack.enter_context(hold_file(log)))
            _fill(scorer, log, options.out)
        session.lead(lambda: write_schedules(options.out, search, read_own_log(log)))
        file = make_file(search, read_own_log(log))
        kept = session.lead(lambda: apply_kept(search.header, file)) if options.apply else None
    return describe_search(options.out, log, file, kept or ())


def _fill(scorer: Scorer, log: Path, out: Path) -> None:
    """Make the trials that are missing, and judge what came of them."""
    search, session = scorer.search, scorer.panel.session
    beginning = Beginning(scorer)
    for steps in search.steps:
        if search.method == "free":
            _find_first_times(scorer, beginning, steps, log)
        _search(scorer, steps, log)
        judge_missing(scorer, steps, log)
        session.lead(lambda: write_schedules(out, search, read_own_log(log)))


def _begin(options: TuneOptions, stack: ExitStack, report: Report) -> tuple[Search, Log | None]:
    """Return the search, and what is there of it."""
    before = read_log(name_log(options.out))
    search = plan_work(options, stack, report, read_method(before))
    tell_stage(options.model, search.header, report)
    check_same_search(options.out, search.identity, search.header.config)
    return search, before


def _list_compared(begun: tuple[Search, Log | None]) -> dict[str, Any]:
    """Return what must be equal in every process."""
    search, log = begun
    return {
        **search.identity,
        "steps": list(search.steps),
        "trials made": len(log.trials) if log else 0,
        "gains judged": [*log.gains, *(f"{name} of {n}" for n, name in log.judged)] if log else [],
    }


def plan(options: TuneOptions, report: Report) -> dict[str, object]:
    """Return the searches and what they would cost; nothing is loaded or written."""
    with ExitStack() as stack:
        search, log = _begin(options, stack, report)
    session = plan_session(options.judge.compute, report)
    numerics = choose_trial_numerics(options, search, log.head if log else None, session)
    left = count_trials_left(search, log.trials if log else [])
    evaluations = _count_evaluations(options, search, log, left, numerics.batch_size)
    chain = search.build_baseline(max(search.steps))  # of few steps none can be timed
    one = estimate_cost(search.header.config, chain, 1, options.judge.compute)
    flops = int(str(one["flops_per_image"])) * evaluations
    seconds = float(str(one["estimated_seconds"])) / chain.evaluations * evaluations
    return {
        "stage": str(search.header.directory),
        "out": str(options.out),
        "samples": options.num,
        "trials": sum(left.values()),
        **{
            name: one[name]
            for name in ("parameters", "flops_per_image", "batch_size", "memory_bytes")
        },
        "disk_bytes": 0,
        "network_evaluations": evaluations,
        "flops": flops,
        **{name: one[name] for name in ("device", "precision")},
        "estimated_seconds": round(seconds, 1),
        "estimated_by": one["estimated_by"],
        "searches": [{"steps": steps, "trials": trials} for steps, trials in left.items()],
    }


def _count_evaluations(
    options: TuneOptions, search: Search, log: Log | None, left: Mapping[int, int], batch_size: int
) -> int:
    """Return how many evaluations there are at most: no trial dropped, all judged."""
    fresh = len(search.inputs.fresh.ids)
    trials = options.num * sum(steps * missing for steps, missing in left.items())
    judged = choose_steps(search, log, left)
    if search.method == "linear":
        return trials + 2 * fresh * sum(judged)
    begun = log.begun if log else {}
    missing = [steps for steps in left if left[steps] and steps not in begun]
    taught = beginning.count_evaluations(search, batch_size, missing)
    many = 0 if log and (0, "reference") in log.judged else search.reference
    return trials + taught + fresh * (3 * sum(judged) + many)


def _find_first_times(scorer: Scorer, beginning: Beginning, steps: int, log: Path) -> None:
    """Find the times to begin with, if that is missing."""
    there = read_own_log(log)
    if steps not in there.begun and count_trials_left(scorer.search, there.trials)[steps]:
        found = beginning.find_times(steps)
        scorer.panel.session.lead(lambda: append_line(log, found))


def _search(scorer: Scorer, steps: int, log: Path) -> None:
    """Make the trials of one number of steps that are missing."""
    session, search, there = scorer.panel.session, scorer.search, read_own_log(log)
    what, total, done = format_count(steps, "step"), search.trials + 1, len(there.of(steps))
    if done == total:
        return
    with session.report.track(what, total, "schedules", done) as advance:
        for number in range(done, total):
            there = read_own_log(log)
            trial = make_trial(scorer, there, steps)
            session.lead(lambda trial=trial: append_line(log, trial))
            told = f"trial {number}: {summarise(trial)}"
            if all(trial.fid < other.fid for other in there.of(steps)):
                session.report.say(f"tune-schedule: {what}, {told}, the lowest so far")
            advance(1, told)
