"""The trials of a search: which schedule is tried next, and what it is judged by.

Trial 0 is the stage's own schedule. A linear search tries linear schedules (`search`). A free one
tries some of these where the stage takes them, then the ways of `begin`; its other trials vary the
best way so far, by more after a success and by less after a failure (Rechenberg's rule). All
trials share images and noise, so that they differ by the schedule alone. Each follows from the
seed, its number and the trials before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cdm_cli.cascade.stage import trains_continuously
from cdm_cli.jobs.tune.begin import list_starts
from cdm_cli.jobs.tune.judge import Raced, Scorer
from cdm_cli.jobs.tune.log import FirstTimes, Log, Trial, find_best_trial, read_way
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.jobs.tune.search import Candidate, Origin, propose
from cdm_cli.jobs.tune.ways import Way, vary
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.units import format_count

LINEAR = 8  # trials of linear schedules beside the free ones
SIZE, LARGER, SMALLER = 0.25, 1.4, 0.92
WITHIN = (0.03, 1.0)
OTHER_SOLVER = 0.05  # how often the solver is changed
PATIENCE = 50  # draws until one is new

Tried = tuple[Origin, Candidate | Way]


def count_linear_trials(search: Search) -> int:
    """Return how many trials are linear schedules: none for a stage that knows its own alone."""
    if search.method == "linear":
        return search.trials
    if not trains_continuously(search.header.config):
        return 0
    return min(LINEAR, search.trials // 4)


def choose_next(
    search: Search, steps: int, begun: FirstTimes | None, trials: Sequence[Trial]
) -> Tried | None:
    """Return what is tried after these trials of so many steps; None: the stage's own schedule.

    begun: the times that a free search begins with.
    """
    number, linear = len(trials), count_linear_trials(search)
    if number == 0:
        return None
    if number <= linear:
        scored = [(trial.place, trial.fid) for trial in trials if trial.place is not None]
        found = propose(search.make_space(steps), number, linear, scored, search.sampling.seed)
        return found.origin, found
    assert begun is not None
    listed = list_starts(search, begun)
    if number - linear <= len(listed):
        return listed[number - linear - 1]
    return "varied", _vary_best(search, steps, trials)


def _vary_best(search: Search, steps: int, trials: Sequence[Trial]) -> Way:
    """Return a way near the best of all ways that was not tried.

    Trials come in pairs: what was gained in one direction is followed once more, and where nothing
    was, the opposite is tried.
    """
    ways = [(trial, way) for trial in trials if (way := read_way(trial))]
    # Of ways that are all worse than the stage's own schedule, the best on the first images.
    _, best = min(ways, key=lambda pair: (pair[0].dropped, pair[0].fid, pair[0].number))
    varied_so_far = [trial for trial in trials if trial.origin == "varied"]
    pair, second = divmod(len(varied_so_far), 2)
    back = second and read_way(varied_so_far[-1]) != best
    there = {read_way(trial) for trial in trials}
    size = _choose_size(trials)
    for attempt in range(PATIENCE):
        rng = np.random.default_rng([search.sampling.seed, steps, pair, attempt])
        shift = np.concatenate([rng.normal(size=5), 0.5 * rng.normal(size=3)])
        found = vary(best, search.schedule, -size * shift if back else size * shift)
        if rng.random() < OTHER_SOLVER:
            found = replace(found, sampler="ddim" if best.sampler != "ddim" else "dpm-solver++")
        if found not in there:
            return found
    return best


def _choose_size(trials: Sequence[Trial]) -> float:
    """Return the size of the next variation: larger after a success, smaller after a failure."""
    size, best = SIZE, np.inf
    for trial in trials:
        better = trial.times is not None and not trial.dropped and trial.fid < best
        if trial.origin == "varied":
            size = float(np.clip(size * (LARGER if better else SMALLER), *WITHIN))
        if better:
            best = trial.fid
    return size


def find_first_of_best(trials: Sequence[Trial]) -> Estimate | None:
    """Return what the best so far had on the first images."""
    there = [trial for trial in trials if trial.first and not trial.dropped]
    if not there:
        return None
    value, *without = find_best_trial(there).first
    return Estimate(value, tuple(without))


def read_schedule(search: Search, trial: Trial) -> Candidate | Way | None:
    """Return what a trial tried; None: the stage's own schedule."""
    if trial.place is not None:
        return search.make_space(trial.steps).make_candidate(trial.place, trial.origin)
    return read_way(trial)


def make_trial(scorer: Scorer, log: Log, steps: int) -> Trial:
    """Choose the next schedule of so many steps, judge it, and return the trial that it is."""
    search, trials = scorer.search, log.of(steps)
    tried = choose_next(search, steps, log.begun.get(steps), trials)
    chain = (
        search.build_baseline(steps) if tried is None else search.build_candidate_chain(tried[1])
    )
    what = f"{format_count(steps, 'step')}, trial {len(trials)} of {search.trials}"
    if search.method == "linear":
        raced = Raced(scorer.fid(chain, what), Estimate(0.0), False)
    else:
        raced = scorer.race(chain, find_first_of_best(trials), what)
    first = (raced.first.value, *raced.first.without) if raced.first.without else ()
    origin, schedule = tried or ("baseline", None)
    names: tuple[str, ...] = ()
    if schedule is not None:
        linear = isinstance(schedule, Candidate)
        names = ("place", "beta_1", "beta_T") if linear else ("times", "stochasticity", "sampler")
    return Trial(
        steps=steps, number=len(trials), origin=origin, variance=chain.variance, fid=raced.fid,
        first=first, dropped=raced.dropped, **{name: getattr(schedule, name) for name in names},
    )  # fmt: skip


def summarise(trial: Trial) -> str:
    """Return the FID of a trial and what it tried, as the rest of a line."""
    how = f", beta {trial.beta_1:.2g}..{trial.beta_T:.2g}" if trial.place else ""
    if trial.times is not None and trial.stochasticity is not None:
        (first, *_, last), k = (trial.times[0], trial.times[-1]), trial.stochasticity
        how = f", {trial.sampler}, t {first}..{last}, noise {k[0]:.2g}..{k[-1]:.2g}"
        return f"FID {trial.fid:.4g} ({trial.origin}{how}){', dropped' if trial.dropped else ''}"
    return f"FID {trial.fid:.4g} ({trial.origin}{how}, {trial.variance})"


def count_trials_left(search: Search, trials: Sequence[Trial]) -> dict[int, int]:
    """Return how many trials are still to be made, the baseline among them, by steps."""
    return {
        steps: 1 + search.trials - sum(trial.steps == steps for trial in trials)
        for steps in search.steps
    }
