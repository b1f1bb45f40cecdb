"""What a schedule gains over the stage's own, on images that did not choose it.

The lowest of many FIDs is low by luck, too: on the images of the trials the gain is too large. So
both schedules are judged once more, on the same fresh images, and the difference is paired.
"""

from collections.abc import Iterable, Mapping, Sequence

from cdm_cli.jobs.sampling.schedule_file import Gain, Searched
from cdm_cli.jobs.tune.judge import Scorer
from cdm_cli.jobs.tune.log import Log, Trial
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.jobs.tune.search import Candidate
from cdm_cli.metrics.comparisons import ALIKE, verdict_between
from cdm_cli.metrics.jackknife import Estimate, difference

FROM = {"images": "other images", "noise": "the same images with other noise"}


def best_trial(trials: Iterable[Trial]) -> Trial:
    """Return the trial of the lowest FID of all images; of equals the earliest."""
    judged = [trial for trial in trials if not trial.dropped]
    return min(judged, key=lambda trial: (trial.fid, trial.number))


def candidate_of(search: Search, steps: int, trial: Trial) -> Candidate | None:
    """Return the schedule of a trial; None: the stage's own."""
    return search.space(steps).candidate(trial.place, trial.origin) if trial.place else None


def gains_left(log: Log | None, left: Mapping[int, int]) -> list[int]:
    """Return the numbers of steps whose gain is still to be judged, or may be.

    left: how many trials are missing, by steps. A log of a version that judged none gets none.
    """
    if log is None:
        return list(left)
    if not log.head.gains:
        return []
    return [
        steps
        for steps, missing in left.items()
        if missing or (steps not in log.gains and best_trial(log.of(steps)).place is not None)
    ]


def judge_gain(scorer: Scorer, steps: int, trials: Sequence[Trial]) -> Gain:
    """Judge the best of the trials and the stage's own schedule on fresh images."""
    search = scorer.search
    candidate = candidate_of(search, steps, best_trial(trials))
    assert candidate is not None
    own = scorer.judge_fresh(search.baseline(steps), f"{steps} steps, the stage's own again")
    best = scorer.judge_fresh(search.chain(candidate), f"{steps} steps, the best again")
    return gain_between(search, steps, own, best)


def gain_between(search: Search, steps: int, own: Estimate, best: Estimate) -> Gain:
    """Return what the best schedule gains over the stage's own, of their FIDs on fresh images."""
    gap = difference(own, best, paired=True)
    return Gain(
        steps=steps,
        fresh=search.asked.fresh_by,
        num=len(search.asked.fresh.ids),
        score=best.value,
        baseline=own.value,
        gain=gap.value if gap.corrected is None else gap.corrected,
        uncertainty=gap.error,
        verdict=verdict_between(best, own) if best.without else None,
    )


def conclude(found: Searched) -> str:
    """Return the result of the search of one number of steps as a sentence."""
    start = f"In {found.steps} steps"
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
