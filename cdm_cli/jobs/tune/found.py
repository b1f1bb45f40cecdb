"""What a search of schedules found: in words, as a table of schedules, and where it is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdm_cli.jobs.sampling.schedule_file import ScheduleFile, Searched
from cdm_cli.jobs.tune.gain import conclude

WHOLE = "times and gains whole: -v"


@dataclass(frozen=True)
class Found:
    """The best schedule of so many steps, as a line of the table.

    gain: of FID, in percent, on the images that chose it. fresh_gain: of FID, on others, with its
    standard error, and whether that is certain (`verdict`); None where that is not known. above:
    how much higher its FID is there than the reference's, with its standard error.
    """

    steps: int
    fid: float
    baseline: float
    gain: float
    sampler: str
    times: tuple[int, ...] | None
    stochasticity: tuple[float, ...] | None
    beta_1: float | None
    beta_T: float | None  # noqa: N815
    alpha_bar_T: float | None  # noqa: N815
    variance: str
    trials: int
    fresh_gain: float | None
    uncertainty: float | None
    verdict: str | None
    above: float | None
    above_uncertainty: float | None

    def show_in_short(self) -> dict[str, Any]:
        """Return what a person asks; FID of the images that chose it."""
        return {
            "steps": self.steps,
            "FID": self.fid,
            "the stage's own": self.baseline,
            "sampler": self.sampler,
            "times": list(self.times or ()) or None,
            "noise": list(self.stochasticity or ()) or None,
            "beta 1": self.beta_1,
            "beta T": self.beta_T,
            "trials": self.trials,
        }


@dataclass(frozen=True)
class TuneResult:
    """What was found, and where it is. schedules: of every number of steps in the file."""

    out: Path
    log: Path
    metric: str
    num: int
    conclusion: str
    schedules: tuple[Found, ...]
    kept: tuple[Path, ...]

    def show_in_short(self) -> list[str | list[dict[str, Any]]]:
        """Return what was found in words, then each schedule, then where it is."""
        rows = [one.show_in_short() for one in self.schedules]
        drawn = (self.out.with_suffix(ending) for ending in (".csv", ".png"))
        files = (self.out, *(path for path in drawn if path.is_file()), self.log, *self.kept)
        where = ", ".join(map(str, files))
        return [self.conclusion, rows, f"written: {where}", WHOLE]


def describe_search(out: Path, log: Path, file: ScheduleFile, kept: tuple[Path, ...]) -> TuneResult:
    """Return what a search found. kept: the files that the stage keeps of it."""
    found = tuple(_describe(one) for one in file.schedules)
    conclusion = " ".join(conclude(one) for one in file.schedules)
    return TuneResult(out, log, file.metric, file.num, conclusion, found, kept)


def _describe(one: Searched) -> Found:
    named = {row.name: row for row in one.compared}
    tuned = named.get("tuned") or named.get("uniform")
    return Found(
        steps=one.steps,
        fid=one.score,
        baseline=one.baseline,
        gain=100 * (1 - one.score / one.baseline) if one.baseline else 0.0,
        sampler=one.sampler,
        times=one.times,
        stochasticity=one.stochasticity,
        beta_1=one.beta_1,
        beta_T=one.beta_T,
        alpha_bar_T=one.alpha_bar[-1] if one.alpha_bar else None,
        variance=one.variance,
        trials=one.trials,
        fresh_gain=one.gain.gain if one.gain else None,
        uncertainty=one.gain.uncertainty if one.gain else None,
        verdict=one.gain.verdict if one.gain else None,
        above=tuned.difference if tuned else None,
        above_uncertainty=tuned.uncertainty if tuned else None,
    )
