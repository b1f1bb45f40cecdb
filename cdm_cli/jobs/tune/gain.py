"""What a schedule gains over the stage's own, on images that did not choose it.

The lowest of many FIDs is low by luck, too: on the images of the trials the gain is too large. So
the best schedule and what it is compared with are judged once more, all on the same fresh images,
and the differences are paired: a linear search compares with the stage's own schedule, a free one
also with the best linear one, the one of the lowest bound, and ancestral sampling in many steps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdm_cli.cascade.chain import Chain
from cdm_cli.jobs.sampling.schedule_file import Compared, Gain, Named, Searched
from cdm_cli.jobs.tune.judge import Scorer
from cdm_cli.jobs.tune.log import (
    FreshScore,
    Log,
    Trial,
    append_line,
    find_best_trial,
    read_own_log,
)
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.jobs.tune.trials import count_trials_left, read_schedule
from cdm_cli.metrics.comparisons import ALIKE, tell_apart
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.units import format_count

FROM = {"images": "other images", "noise": "the same images with other noise"}


def measure_gain(search: Search, steps: int, own: Estimate, best: Estimate) -> Gain:
    """Return what the best schedule gains over the stage's own, of their FIDs on fresh images."""
    gap = own.minus(best)
    return Gain(
        steps=steps,
        fresh=search.inputs.fresh_by,
        num=len(search.inputs.fresh.ids),
        score=best.value,
        baseline=own.value,
        gain=gap.value if gap.corrected is None else gap.corrected,
        uncertainty=gap.error,
        verdict=tell_apart(best, own) if best.without else None,
    )


def conclude(found: Searched) -> str:
    """Return the result of the search of one number of steps as a sentence."""
    start = f"In {format_count(found.steps, 'step')}"
    if found.score >= found.baseline:
        return f"{start} no trial had a lower FID than the stage's own schedule."
    gain = found.gain
    if gain is None or gain.verdict is None or gain.uncertainty is None:
        return f"{start} the lowest FID is {found.score:.4g}; how surely is not known."
    by = f"{abs(gain.gain):.2g} ± {gain.uncertainty:.2g}"
    on = f"FID of {gain.num} images that did not choose it ({FROM[gain.fresh]})"
    if gain.verdict == ALIKE:
        return f"{start} the schedule and the stage's own differ by {by} in {on}: {ALIKE}."
    return f"{start} the schedule is {gain.verdict} than the stage's own by {by} in {on}."


def choose_chains(search: Search, trials: Sequence[Trial]) -> dict[Named, Chain]:
    """Return the chains to judge on fresh images: own schedule, baselines, and the best if new."""
    steps = trials[0].steps
    chains: dict[Named, Chain] = {"uniform": search.build_baseline(steps)}
    best = find_best_trial(trials)
    others: dict[Named, list[Trial]] = {
        "elbo": [trial for trial in trials if trial.origin == "elbo"],
        "linear": [trial for trial in trials if trial.place is not None],
        "tuned": [best] if best.number else [],
    }
    for name, those in others.items():
        if those:
            first = min(those, key=lambda trial: (trial.dropped, trial.fid, trial.number))
            chains[name] = make_chain(search, first)
    return chains


def make_chain(search: Search, trial: Trial) -> Chain:
    """Return the chain that a trial was of."""
    found = read_schedule(search, trial)
    return (
        search.build_baseline(trial.steps) if found is None else search.build_candidate_chain(found)
    )


def compare_judged(log: Log, steps: int) -> tuple[Compared, ...]:
    """Return how each that was judged stands beside the reference, on the same fresh images."""
    reference = log.judged.get((0, "reference"))
    found = [one for (at, _), one in log.judged.items() if at == steps]
    return tuple(_compare(one, reference) for one in [*([reference] if reference else []), *found])


def _compare(one: FreshScore, reference: FreshScore | None) -> Compared:
    gap = verdict = None
    if reference is not None and one is not reference:
        gap = one.estimate.minus(reference.estimate)
        known = bool(one.without and reference.without)
        verdict = tell_apart(one.estimate, reference.estimate) if known else None
    return Compared(
        name=one.name,
        num=one.num,
        fid=one.value,
        error=one.estimate.error,
        difference=None if gap is None else gap.corrected,
        uncertainty=None if gap is None else gap.error,
        verdict=verdict,
    )


def choose_steps(search: Search, log: Log | None, left: Mapping[int, int]) -> list[int]:
    """Return the numbers of steps of which something is still to be judged, or may be.

    left: how many trials are missing, by steps. A linear search of a version that judged no gains
    gets none.
    """
    if log is None:
        return list(left)
    if search.method == "linear" and not log.head.gains:
        return []
    return [n for n, missing in left.items() if missing or _lacks_scores(search, log, n)]


def _lacks_scores(search: Search, log: Log, steps: int) -> bool:
    """Return whether what the trials of so many steps came to was not all judged."""
    trials = log.of(steps)
    if search.method == "linear":
        return steps not in log.gains and find_best_trial(trials).place is not None
    return any((steps, name) not in log.judged for name in choose_chains(search, trials))


def judge_missing(scorer: Scorer, steps: int, log: Path) -> None:
    """Judge on fresh images what the trials of so many steps came to, as far as that is missing.

    What is judged is appended to the log, by the first process.
    """
    search, session, found = scorer.search, scorer.panel.session, read_own_log(log)
    left = {steps: count_trials_left(search, found.trials)[steps]}
    if steps not in choose_steps(search, found, left):
        return
    if search.method == "linear":
        best = make_chain(search, find_best_trial(found.of(steps)))
        own = scorer.judge_fresh(
            search.build_baseline(steps), f"{format_count(steps, 'step')}, the stage's own again"
        )
        again = scorer.judge_fresh(best, f"{format_count(steps, 'step')}, the best again")
        session.lead(lambda: append_line(log, measure_gain(search, steps, own, again)))
        return
    chains: dict[tuple[int, Any], Chain] = {}
    if search.reference:
        chains[0, "reference"] = search.build_reference()
    chains |= {(steps, name): it for name, it in choose_chains(search, found.of(steps)).items()}
    for (at, name), chain in chains.items():
        if (at, name) not in found.judged:
            score = scorer.judge_fresh(
                chain, f"{format_count(at or search.reference, 'step')}, {name}, again"
            )
            line = FreshScore(
                steps=at, name=name, num=len(search.inputs.fresh.ids), value=score.value,
                without=score.without, without_two=score.without_two,
            )  # fmt: skip
            session.lead(lambda line=line: append_line(log, line))
