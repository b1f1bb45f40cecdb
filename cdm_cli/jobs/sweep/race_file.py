"""`race.json`: the budget of a race, its rounds, what was judged, who was beaten and who paused.

A number is kept as soon as it is there, and the budget before the first one, so that a race that
was killed ends as if it had not been. Numbers outlive their race: the next one reads them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import read_settings, write_settings
from cdm_cli.jobs.runtime.identity import advise_remaking
from cdm_cli.jobs.sweep.racers import Racers
from cdm_cli.metrics.best import Contender
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import BEFORE, RacePlan, Round, plan_rounds
from cdm_cli.metrics.verdicts import BEATEN, put_in_words
from cdm_cli.names import RACE_FILE
from cdm_cli.settings import Later, Settings

LIMIT = 2**26
PAUSED = "paused"
Labels = dict[str, Any]


class Number(Settings):
    """FID of the first num images of a point; without: the same, each jackknife group left out."""

    point: Labels
    num: int
    value: float
    without: tuple[float, ...]

    @property
    def estimate(self) -> Estimate:
        """The number as the statistics of metrics/ take it."""
        return Estimate(self.value, self.without)


class Standing(Settings):
    """How one point stood in a round.

    verdict: "beaten" ("worse" in files of earlier versions), else "may be the best" or "the best".
    difference: how much higher its FID is than the lowest, both less their biases; uncertainty: its
    standard error. paused: whether it may be the best, but the rest of the budget is not likely to
    tell, and goes to others.
    """

    point: Labels
    verdict: str
    difference: float
    uncertainty: float
    paused: bool = False

    @property
    def beaten(self) -> bool:
        """Whether another point is as good or better with certainty."""
        return self.verdict in (BEATEN, "worse")

    def __str__(self) -> str:
        words = put_in_words(self.verdict, self.difference, self.uncertainty)
        return f"{words}, {PAUSED}" if self.paused else words


class RoundFile(Settings):
    """One round, on the first num images of each point.

    level: the probability, at most, that the best point is beaten in it. evaluations: of all rounds
    up to this one. against: the point of the lowest FID, from which the differences are. lacking:
    classes of the images of all rounds of which these have none.
    """

    round: int
    num: int
    level: float
    evaluations: int
    against: Labels
    points: tuple[Standing, ...]
    lacking: Annotated[int, Later()] = 0

    @property
    def beaten(self) -> list[Standing]:
        """The points that are beaten in this round."""
        return [one for one in self.points if one.beaten]

    @property
    def paused(self) -> list[Standing]:
        """The points that are paused after this round."""
        return [one for one in self.points if one.paused]


class RaceFile(Settings):
    """The contents of `race.json`.

    asked: the budget as typed; evaluations: what it comes to, at most the grid's (in files of
    earlier versions more); per_second: the measured speed by which, where it was a time. plan: its
    rounds, None while a time was not yet measured, and in files of earlier versions. costs:
    evaluations of one image of each point. num: images of each point, at most; step: images are
    made so many at a time. grid: evaluations of all num images of all points. decided: what the
    axes of each point decide, as weights by their digest; () in files of earlier versions.
    """

    schema_version: Literal[1] = 1
    cdm_version: str = __version__
    command: str
    sweep: str
    asked: str
    evaluations: int
    per_second: float | None = None
    plan: RacePlan | None = None
    reference: str = ""
    points: tuple[Labels, ...]
    decided: tuple[Labels, ...] = ()
    costs: tuple[int, ...]
    num: int
    step: int
    grid: int
    rounds: tuple[RoundFile, ...] = ()
    left: tuple[Labels, ...] = ()
    conclusion: str = ""
    numbers: tuple[Number, ...] = ()

    @property
    def spent(self) -> int:
        """Evaluations of all rounds."""
        return self.rounds[-1].evaluations if self.rounds else 0

    @property
    def rules(self) -> RacePlan:
        """The rounds of this race: a race that an earlier version began goes on as it was begun."""
        return self.plan or plan_rounds(self.costs, self.evaluations, way=BEFORE)

    def find_number(self, point: Labels, num: int) -> Number | None:
        """Return the number of the first num images of a point, None where they were not judged."""
        here = (one for one in self.numbers if (one.point, one.num) == (point, num))
        return next(here, None)

    def is_same_race(self, racers: Racers) -> bool:
        """Whether this is the race that is asked for: the same budget, points, num and step."""
        points = tuple(point.labels for point in racers.points)
        here = self.asked, self.points, self.num, self.step
        return here == (racers.asked, points, racers.num, racers.step)


def read_race(out: Path, mark: str) -> RaceFile | None:
    """Return the race of a directory; None where there is none, or where it is of another sweep."""
    if not (out / RACE_FILE).exists():
        return None
    found = read_settings(RaceFile, out / RACE_FILE, LIMIT, next=advise_remaking(out, RACE_FILE))
    return found if found.sweep == mark else None


def write_race(out: Path, race: RaceFile) -> None:
    """Write `race.json`, whole or not at all."""
    write_settings(out / RACE_FILE, race)


def record_round(done: Round, racers: Racers) -> RoundFile:
    """Return the record of a round."""
    labels = [point.labels for point in racers.points]
    alone = len(done.left) == 1
    standings = [
        Standing(point=labels[i], verdict=_say_verdict(one, alone), difference=one.difference,
                 uncertainty=one.error, paused=i in done.paused)
        for i, one in zip(done.judged, done.found, strict=True)
    ]  # fmt: skip
    return RoundFile(
        round=done.number,
        num=done.num,
        level=done.level,
        evaluations=done.spent,
        against=labels[done.lowest],
        points=tuple(standings),
        lacking=racers.count_lacking(done.num),
    )


def _say_verdict(one: Contender, alone: bool) -> str:
    return BEATEN if one.beaten else "the best" if alone else "may be the best"
