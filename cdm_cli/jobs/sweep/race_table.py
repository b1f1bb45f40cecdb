"""What a race found, in words and as a table: which points may be the best, and what that took."""

from dataclasses import dataclass
from typing import Any

from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.point import spell_value
from cdm_cli.jobs.sweep.race_file import Labels, RaceFile, RoundFile, Standing
from cdm_cli.metrics.comparisons import list_names, name_subject

FEWER = (
    "beaten and paused points are judged on fewer images, and FID falls with their number: compare "
    "points of one num alone"
)
ON = "the same command without --race goes on to the whole grid, with what is there"


def conclude_race(race: RaceFile) -> str:
    """Return what a race found and what it took, in one sentence."""
    what, all_ = f"by {name_subject('fid', race.reference)}", len(race.points)
    share = (
        f"{race.spent} evaluations, {100 * race.spent / race.grid:.3g} % of the grid's {race.grid}"
    )
    names = [name_point(point) for point in race.left]
    if len(names) == 1:
        return f"{names[0]} is the best of {all_} points {what}, for {share}."
    if len(names) == all_:
        return f"{what[0].upper()}{what[1:]} any of the {all_} points may be the best, for {share}."
    some = f"{len(names)} of {all_} points may be the best {what}, for {share}"
    return f"{some}: {list_names(names)}."


def say_why_it_ended(race: RaceFile) -> str:
    """Return why nothing of the rest of its budget was spent, once a race is over."""
    last = race.rounds[-1]
    if len(race.left) == 1:
        return "one point is left, there is nothing to compare"
    if last.paused:
        others = len(last.points) - len(last.beaten) - len(last.paused)
        return f"too few for another {race.step} images of each of the {others} that are not paused"
    if last.num < race.num and last.round == len(race.rules.ends):
        more = f"{race.step} images of each of its {len(last.points)} points"
        return f"the last round is over, and they are too few for another {more}"
    if len(race.left) > len(last.points) - len(last.beaten):
        few = f"too few to bring a paused point to {last.num} images"
        return few if race.rules.wakes else "in a race of an earlier version, paused ones wait"
    return "the points that may be the best have all of their images"


@dataclass(frozen=True)
class RaceTable:
    """One line for each point: its last number, and how it stood then."""

    race: RaceFile

    def header(self) -> list[str]:
        """Return the titles of the columns."""
        labels = [label.replace("_", " ") for label in self.race.points[0]]
        reference = self.race.reference
        return [*labels, f"fid {reference}", "±", "num", "beaten in round",
                f"by {name_subject('fid', reference)}"]  # fmt: skip

    def lines(self) -> list[list[str]]:
        """Return one line of cells for each point."""
        return [self._make_line(point) for point in self.race.points]

    def to_json(self) -> dict[str, Any]:
        """Return all that `race.json` holds."""
        return self.race.model_dump(mode="json")

    def gather_notes(self) -> list[str]:
        """Return what a reader must know."""
        apart = len(self.race.left) < len(self.race.points)
        return [*([FEWER] if apart else []), ON]

    def _make_line(self, point: Labels) -> list[str]:
        last, standing = self._find_last(point)
        number = self.race.find_number(point, last.num)
        error = number.estimate.error if number else None
        gone = str(last.round) if standing.beaten else ""
        return [
            *map(spell_value, point.values()),
            f"{number.value:.5g}" if number else "",
            "" if error is None else f"{error:.2g}",
            str(last.num),
            gone,
            str(standing),
        ]

    def _find_last(self, point: Labels) -> tuple[RoundFile, Standing]:
        """Return the last round of a point, and how it stood."""
        found = [
            (one, standing)
            for one in self.race.rounds
            for standing in one.points
            if standing.point == point
        ]
        return found[-1]
