"""Which way is tried next in a free search, and what of it is judged on fresh images.

The first trials are the stage's own schedule, linear schedules where the stage takes them, and
the ways of `begin`; the others vary the best so far, by more after a success and by less after a
failure (Rechenberg's rule). All share images and noise, so that they differ by the schedule
alone. Each follows from the seed, its number and the trials before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.stage import trains_continuously
from cdm_cli.jobs.sampling.schedule_file import Compared, Named
from cdm_cli.jobs.tune.begin import starts
from cdm_cli.jobs.tune.gain import best_trial
from cdm_cli.jobs.tune.log import FirstTimes, FreshScore, Log, Trial
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.jobs.tune.search import Candidate, Origin, propose
from cdm_cli.jobs.tune.ways import Way, vary
from cdm_cli.metrics.comparisons import verdict_between
from cdm_cli.metrics.jackknife import Estimate, difference

LINEAR = 8  # trials of linear schedules beside the free ones
SIZE, LARGER, SMALLER = 0.25, 1.4, 0.92
WITHIN = (0.03, 1.0)
OTHER_SOLVER = 0.05  # how often the solver is changed
PATIENCE = 50  # draws until one is new

Tried = tuple[Origin, Candidate | Way]


def linear_trials(search: Search) -> int:
    """Return how many trials are linear schedules: none for a stage that knows its own alone."""
    if not trains_continuously(search.header.config):
        return 0
    return min(LINEAR, search.trials // 4)


def way_of(trial: Trial) -> Way | None:
    """Return the way that a trial was of."""
    if trial.times is None or trial.stochasticity is None:
        return None
    solver = "ddim" if trial.sampler == "ddim" else "dpm-solver++"
    return Way(trial.times, trial.stochasticity, solver)


def choose_next(search: Search, begun: FirstTimes, trials: Sequence[Trial]) -> Tried | None:
    """Return what is tried after these trials; None: the stage's own schedule."""
    number, linear = len(trials), linear_trials(search)
    if number == 0:
        return None
    if number <= linear:
        scored = [(trial.place, trial.fid) for trial in trials if trial.place is not None]
        space, seed = search.space(begun.steps), search.sampling.seed
        found = propose(space, number, linear, scored, seed)
        return found.origin, found
    listed = starts(search, begun)
    if number - linear <= len(listed):
        return listed[number - linear - 1]
    return "varied", _near_the_best(search, begun.steps, trials)


def _near_the_best(search: Search, steps: int, trials: Sequence[Trial]) -> Way:
    """Return a way near the best of all ways that was not tried.

    Trials come in pairs: what was gained in one direction is followed once more, and where nothing
    was, the opposite is tried.
    """
    best = way_of(best_trial([trial for trial in trials if way_of(trial) and not trial.dropped]))
    assert best is not None
    varied_so_far = [trial for trial in trials if trial.origin == "varied"]
    pair, second = divmod(len(varied_so_far), 2)
    back = second and way_of(varied_so_far[-1]) != best
    there = {way_of(trial) for trial in trials}
    size = _size(trials)
    for attempt in range(PATIENCE):
        rng = np.random.default_rng([search.sampling.seed, steps, pair, attempt])
        shift = np.concatenate([rng.normal(size=5), 0.5 * rng.normal(size=3)])
        found = vary(best, search.schedule, -size * shift if back else size * shift)
        if rng.random() < OTHER_SOLVER:
            found = replace(found, sampler="ddim" if best.sampler != "ddim" else "dpm-solver++")
        if found not in there:
            return found
    return best


def _size(trials: Sequence[Trial]) -> float:
    """Return the size of the next variation: larger after a success, smaller after a failure."""
    size, best = SIZE, np.inf
    for trial in trials:
        better = trial.times is not None and not trial.dropped and trial.fid < best
        if trial.origin == "varied":
            size = float(np.clip(size * (LARGER if better else SMALLER), *WITHIN))
        if better:
            best = trial.fid
    return size


def first_of_best(trials: Sequence[Trial]) -> Estimate | None:
    """Return what the best so far had on the first images."""
    there = [trial for trial in trials if trial.first and not trial.dropped]
    if not there:
        return None
    value, *without = best_trial(there).first
    return Estimate(value, tuple(without))


def to_judge(search: Search, trials: Sequence[Trial]) -> dict[Named, Chain]:
    """Return the chains to judge on fresh images: own schedule, baselines, and the best if new."""
    steps = trials[0].steps
    chains: dict[Named, Chain] = {"uniform": search.baseline(steps)}
    best = best_trial(trials)
    others: dict[Named, list[Trial]] = {
        "elbo": [trial for trial in trials if trial.origin == "elbo"],
        "linear": [trial for trial in trials if trial.place is not None],
        "tuned": [best] if best.number else [],
    }
    for name, those in others.items():
        if those:
            chains[name] = chain_of_trial(search, min(those, key=_rank))
    return chains


def _rank(trial: Trial) -> tuple[bool, float, int]:
    return trial.dropped, trial.fid, trial.number


def chain_of_trial(search: Search, trial: Trial) -> Chain:
    """Return the chain that a trial was of."""
    found = way_of(trial)
    if found is not None:
        return search.chain(found)
    if trial.place is None:
        return search.baseline(trial.steps)
    return search.chain(search.space(trial.steps).candidate(trial.place, trial.origin))


def compare_judged(log: Log, steps: int) -> tuple[Compared, ...]:
    """Return how each that was judged stands beside the reference, on the same fresh images."""
    reference = log.judged.get((0, "reference"))
    found = [one for (at, _), one in log.judged.items() if at == steps]
    return tuple(_compare(one, reference) for one in [*([reference] if reference else []), *found])


def _compare(one: FreshScore, reference: FreshScore | None) -> Compared:
    gap = verdict = None
    if reference is not None and one is not reference:
        gap = difference(one.estimate, reference.estimate, paired=True)
        known = bool(one.without and reference.without)
        verdict = verdict_between(one.estimate, reference.estimate) if known else None
    return Compared(
        name=one.name,
        num=one.num,
        fid=one.value,
        error=one.estimate.error,
        difference=None if gap is None else gap.corrected,
        uncertainty=None if gap is None else gap.error,
        verdict=verdict,
    )
