"""What a page says of a race: which points are beaten, when and by how much, and what it took."""

from collections.abc import Iterator, Mapping

from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.figure import encode_figure, make_figure
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.race_file import (
    PAUSED,
    Number,
    RaceFile,
    RoundFile,
    Standing,
)
from cdm_cli.jobs.sweep.race_table import RaceTable
from cdm_cli.metrics.comparisons import name_subject
from cdm_cli.metrics.verdicts import BEATEN, LEVEL

PANEL, LETTER = 5.0, 0.08  # inches, and those of each letter of a name beside it
ASIDE = 0.7  # of the differences, for what is written on their right
CERTAIN = (
    "A point is beaten when another one is certain to be as good or better; it gets no more "
    "images. The best point is not beaten, with a chance of {:.0f} %, all rounds counted."
)
WAITING = (
    "A paused point may be the best, but what was left of the budget was not likely to tell: it "
    "went to points of which it was."
)


def tell_race(race: RaceFile, facts: Mapping[str, object]) -> Iterator[Html]:
    """Yield the sections of the page of a race. facts: what the race is of, told first."""
    yield page.paragraph(tell_outcome(race), "lead")
    paused = any(one.paused for one in race.rounds)
    words = [CERTAIN.format(100 * (1 - LEVEL)), *([WAITING] if paused else [])]
    yield page.paragraph(" ".join(words))
    known = {"points": len(race.points), "images of each, at most": race.num}
    yield page.section("What it is of", page.facts({**facts, **known}))
    table = RaceTable(race)
    good = [point in race.left for point in race.points]
    yield page.section(
        "Which points may be the best",
        page.picture(draw_race(race), "How much higher each point was in its last round"),
        page.table(table.header(), table.lines(), good),
        page.notes(table.gather_notes()),
    )
    yield page.section("Round by round", *(_tell_round(race, one) for one in race.rounds))
    yield page.section("What it cost", *_tell_costs(race))


def tell_outcome(race: RaceFile) -> str:
    """Return what a race found, or how far it is, in one sentence."""
    so_far = f"The race is not over: {len(race.left)} of {len(race.points)} points may be the best."
    return race.conclusion or so_far


def _tell_round(race: RaceFile, one: RoundFile) -> Html:
    """Return the section of a round; the points that were beaten come first."""
    told = (
        f"Round {one.round}: {len(one.points)} points on {one.num} images each, against "
        f"{name_point(one.against)}; {len(one.beaten)} beaten{_count_paused(one)}. The best point "
        f"is among the beaten with a chance of {100 * one.level:.2g} % at most."
    )
    ordered = sorted(one.points, key=lambda point: (not point.beaten, -point.difference))
    lines = [_make_line(race.find_number(point.point, one.num), point) for point in ordered]
    header = ["point", f"fid {race.reference}", "±", "higher by", "±", "verdict"]
    return page.join([page.paragraph(told), page.table(header, lines)])


def _count_paused(one: RoundFile) -> str:
    return f", {len(one.paused)} {PAUSED}" if one.paused else ""


def _make_line(number: Number | None, point: Standing) -> list[object]:
    error = number.estimate.error if number else None
    return [
        name_point(point.point),
        f"{number.value:.5g}" if number else "",
        "" if error is None else f"{error:.2g}",
        f"{point.difference:.2g}",
        f"{point.uncertainty:.2g}",
        f"{point.verdict}, {PAUSED}" if point.paused else point.verdict,
    ]


def _tell_costs(race: RaceFile) -> Iterator[Html]:
    """Yield the evaluations of each round, and those of the grid beside them."""
    spent = [0, *(one.evaluations for one in race.rounds)]
    lines: list[tuple[object, ...]] = [
        (f"round {one.round}", len(one.points), one.num, one.evaluations - before)
        for one, before in zip(race.rounds, spent, strict=False)
    ]
    lines += [
        ("the race", "", "", race.spent),
        ("its budget", "", "", race.evaluations),
        ("the whole grid", len(race.points), race.num, race.grid),
    ]
    yield page.table(["", "points", "images of each", "evaluations"], lines)
    share = f"{100 * race.spent / race.grid:.3g} % of the evaluations of the grid"
    rate = f", by {race.per_second:.4g} evaluations/s" if race.per_second else ""
    yield page.paragraph(f"{share}. Asked for: {race.asked}{rate}.")


def draw_race(race: RaceFile) -> bytes:
    """Return a picture of the last difference of each point from the lowest, with its error."""
    last = {name_point(one.point): (round_, one) for round_ in race.rounds for one in round_.points}
    names = sorted(last, key=lambda name: last[name][1].difference)
    figure = make_figure(PANEL + LETTER * max(map(len, names)), 1.2 + 0.3 * len(names))
    axes = figure.add_subplot()
    for at, name in enumerate(names):
        round_, one = last[name]
        colour = "0.55" if one.beaten else "tab:blue"
        axes.errorbar(one.difference, at, xerr=one.uncertainty, fmt="o", capsize=2, color=colour)
        aside = BEATEN if one.beaten else PAUSED if one.paused else ""
        gone = f" {aside} in round {round_.round}" if aside else ""
        axes.annotate(
            f"{gone} ({round_.num})", (one.difference + one.uncertainty, at), (4, 0),
            textcoords="offset points", va="center", fontsize="small", color=colour,
        )  # fmt: skip
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + ASIDE * (high - low))
    axes.set_xlabel(f"{name_subject('fid', race.reference)}, above the lowest (of so many images)")
    return encode_figure(figure)
