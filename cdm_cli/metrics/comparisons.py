"""How each of several points stands among the others: a verdict on each, and one sentence on all.

The points of a family share the noise of their images, and are compared pair by pair
(verdicts.py). A family of one point, or with a number that has no leave-out values, gets none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.table import Comparison, Labels, MetricRow
from cdm_cli.metrics.verdicts import LEVEL, find_least_told, reach_verdicts

HIGHEST = ("is", "accuracy")  # of these metrics more is better
ALIKE = "not told apart"
SPOKEN = {"fid": "FID", "is": "IS", "kid": "KID"}
NAMED = 6  # points in a sentence
LEAST = (
    "{what} of {num} images a point tells no difference from the lowest under about {least:.2g}; "
    "of {four}, none under {half:.2g}"
)

Named = Callable[[Labels], str]


def compare_family(family: Sequence[MetricRow]) -> list[Comparison]:
    """Return a verdict on each point of a family, by each of its metrics and references.

    The verdicts of one metric and reference are one family: the probability that any of these is
    wrong is 5 % at most.
    """
    found: list[Comparison] = []
    for rows in _group_by_metric(family).values():
        if are_comparable(rows):
            found += _compare(rows)
    return found


def tell_apart(
    one: Estimate, other: Estimate, *, highest: bool = False, level: float = LEVEL
) -> str:
    """Return "better", "worse" or "not told apart", of one number, at a level, by default 5 %.

    Raises ValueError for different numbers of groups.
    """
    mine, theirs = reach_verdicts([one, other], level=level, highest=highest)
    if "worse" not in (mine.standing, theirs.standing):
        return ALIKE
    return "worse" if mine.standing == "worse" else "better"


def are_comparable(rows: Sequence[MetricRow]) -> bool:
    """Whether several numbers can be compared: all have leave-out values of the same groups."""
    return len(rows) > 1 and "" not in (marks := {row.groups for row in rows}) and len(marks) == 1


def explain_left_out(family: Sequence[MetricRow]) -> list[str]:
    """Return why some points of a family got no verdict, a line for each metric and reference."""
    return [
        f"no verdicts by {name_subject(metric, reference)}: {missing} of {len(rows)} numbers were "
        "kept without what they would be with fewer images (by an earlier version, or of too few)"
        for (metric, reference), rows in _group_by_metric(family).items()
        if len(rows) > 1 and (missing := sum(not row.groups for row in rows))
    ]


def name_subject(metric: str, reference: str) -> str:
    """Return what is compared, as `FID against train`."""
    spoken = SPOKEN.get(metric, metric)
    return f"{spoken} against {reference}" if reference else spoken


@dataclass(frozen=True)
class RankedRows:
    """The rows of one family by one metric and reference, with the verdict on each.

    lowest: the row of the lowest value, of equals the first. compared: a verdict on each row, in
    order; none where that is not known.
    """

    lowest: MetricRow
    rows: tuple[MetricRow, ...]
    compared: tuple[Comparison, ...]

    @property
    def good(self) -> list[Comparison]:
        """The points that none is certain to be better than."""
        return [one for one in self.compared if one.verdict != "worse"]

    @property
    def standing(self) -> str | None:
        """The verdict on the lowest, None where that is not known."""
        here = (str(one) for one in self.compared if one.point == self.lowest.extra)
        return next(here, None)

    def list_tied(self, named: Named) -> tuple[str, ...] | None:
        """Return the names of the others that are as good as the best, None if not known."""
        others = (one.point for one in self.good if one.point != self.lowest.extra)
        return tuple(map(named, others)) if self.compared else None

    def conclude(self, named: Named) -> str:
        """Return one sentence that a person can repeat. named: what a point is called."""
        if self.compared:
            return _conclude(self.compared, self.lowest.convention.num, named)
        name, value = named(self.lowest.extra), f"{self.lowest.value:.4g}"
        if len(self.rows) == 1:
            return f"{name} is the only point: {self._what} is {value}, compared with nothing."
        return f"{name} has the lowest {self._what}, {value}; how surely is not known."

    def say_what_is_told(self) -> list[str]:
        """Return a note: which differences so many images tell, where several points are tied."""
        good = [one.point for one in self.good]
        tied = [row for row in self.rows if row.extra in good]
        if len(tied) < 2 or len({row.convention.num for row in tied}) > 1:
            return []
        least, num = find_least_told([row.estimate for row in tied]), tied[0].convention.num
        if least == 0:
            return []
        return [LEAST.format(what=self._what, num=num, least=least, half=least / 2, four=4 * num)]

    def entitle(self, named: Named) -> str:
        """Return what was found in a few words."""
        if not self.compared:
            return f"lowest {self._what}: {named(self.lowest.extra)}"
        if len(self.good) == 1:
            return f"best by {self._what}: {named(self.good[0].point)}"
        some = f"{len(self.good)} of {len(self.compared)} points"
        return f"as good as the best by {self._what}: {some}"

    @property
    def _what(self) -> str:
        return name_subject(self.lowest.metric, self.lowest.reference)


def compare_rows(rows: Sequence[MetricRow]) -> RankedRows:
    """Compare the rows of one metric and one reference, at least one; less is better."""
    return RankedRows(
        min(rows, key=lambda row: row.value), tuple(rows), tuple(compare_family(rows))
    )


def _conclude(compared: Sequence[Comparison], num: int, named: Named) -> str:
    what = f"by {name_subject(compared[0].metric, compared[0].reference)} of {num} images"
    good = [one for one in compared if one.verdict != "worse"]
    worse = sorted(
        (one for one in compared if one.verdict == "worse"), key=lambda one: abs(one.difference)
    )
    if not worse:
        return f"{what[0].upper()}{what[1:]} nothing tells the {len(compared)} points apart."
    if len(good) == 1:
        best, nearest = named(good[0].point), named(worse[0].point)
        nearest = nearest if len(worse) == 1 else f"the nearest, {nearest},"
        return f"{best} is the best of {len(compared)} points {what}: {nearest} is {worse[0]}."
    some = f"{len(good)} of {len(compared)} points are as good as the best {what}"
    if len(worse) <= len(good):
        return f"{some}, all but {list_names([f'{named(one.point)} ({one})' for one in worse])}."
    return f"{some}: {list_names([named(one.point) for one in good])}."


def list_names(names: Sequence[str]) -> str:
    """Join names for a sentence, "a, b and c"; of many only the first, and how many more."""
    more = len(names) - NAMED
    if more > 0:
        return f"{', '.join(names[:NAMED])} and {more} more"
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _group_by_metric(family: Sequence[MetricRow]) -> dict[tuple[str, str], list[MetricRow]]:
    rows: dict[tuple[str, str], list[MetricRow]] = {}
    for row in family:
        rows.setdefault((row.metric, row.reference), []).append(row)
    return rows


def _compare(rows: Sequence[MetricRow]) -> list[Comparison]:
    highest = rows[0].metric in HIGHEST
    verdicts = reach_verdicts([row.estimate for row in rows], highest=highest)
    best = next(row for row, one in zip(rows, verdicts, strict=True) if one.lowest)
    return [
        Comparison.of(row, best, one.standing, one.difference, one.error)
        for row, one in zip(rows, verdicts, strict=True)
    ]
