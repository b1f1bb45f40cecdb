"""Which point of a sweep is chosen, and how surely: a verdict on every point.

Points are compared within families: all generated images are one family, and the real images of
each split (`--ground-truth`) are one of their own. The best of one family says nothing of another.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from cdm_cli.errors import quote
from cdm_cli.jobs.sweep.point import REAL, Kind, spell_value
from cdm_cli.metrics.comparisons import RankedRows, compare_family, compare_rows, explain_left_out
from cdm_cli.metrics.table import Comparison, MetricRow
from cdm_cli.options.sweeping import spell
from cdm_cli.settings import Settings

PREFERRED = "train"  # the reference by whose FID the paper chooses
APART = "{} points are compared among themselves"
CHOICE = (
    "{what} chosen by FID against {reference}, on the images that are reported here: to publish a "
    "number, judge fresh ones (cdm sample{kept}, then cdm upsample{flags}, with another --seed)"
)


class Judged(Settings):
    """The JSON file of one point: its numbers, and the setting and samples that they belong to.

    axes: its values on axes other than s. decided: the identity fields that these axes decide
    (`point.DECIDED`). evaluations: network evaluations for one image; None in files of versions
    that did not record it.
    """

    schema_version: Literal[1] = 1
    sweep: str
    augment: Kind
    s: int
    axes: dict[str, Any] = Field(default_factory=dict[str, Any])
    decided: dict[str, Any] = Field(default_factory=dict[str, Any])
    evaluations: int | None = None
    samples: str
    parents: tuple[dict[str, str], ...]
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...]

    @property
    def labels(self) -> dict[str, Any]:
        """The values that identify the point in its rows: augment, s, and all other axes."""
        return {"augment": self.augment, "s": self.s, **self.axes}


class Chosen(Settings):
    """The point of the lowest FID against one reference.

    axes: its values on axes other than s. standing: the verdict on it, which need not be "best".
    tied: the names of the other points that are as good as the best. Both are None where the
    numbers were kept without what verdicts need.
    """

    augment: Kind
    s: int
    axes: dict[str, Any] = Field(default_factory=dict[str, Any])
    metric: Literal["fid"] = "fid"
    reference: str
    value: float
    uncertainty: float | None
    standing: str | None = None
    tied: tuple[str, ...] | None = None

    @property
    def labels(self) -> dict[str, Any]:
        """The values that identify the point in its rows: augment, s, and all other axes."""
        return {"augment": self.augment, "s": self.s, **self.axes}


def name_point(point: dict[str, Any]) -> str:
    """Return the name of a point for people, as "truncated s = 251"; at s = 0 it has no kind."""
    kind = "" if point["augment"] == "none" else f"{point['augment']} "
    others = [name_value(axis, point[axis]) for axis in point if axis not in ("augment", "s")]
    more = f" ({', '.join(others)})" if others else ""
    return f"{kind}s = {point['s']}{more}"


def name_value(axis: str, value: Any) -> str:
    """Return a value on an axis in words, as "steps = 8"; a sampler by its name alone, "ddim"."""
    return (
        spell_value(value)
        if axis == "sampler"
        else f"{axis.replace('_', ' ')} = {spell_value(value)}"
    )


def choose(points: Sequence[Judged]) -> Chosen:
    """Return the point of the lowest FID, as the paper selects (Table 3), among those ranked.

    `rank_points` says which points these are, and which reference decides. Of equal points the
    first is taken: the one with the fewest evaluations, then the one with the smallest s.
    """
    here = rank_points(points)
    best = here.lowest
    others = {axis: best.extra[axis] for axis in best.extra if axis not in ("augment", "s")}
    return Chosen(
        augment=best.extra["augment"],
        s=best.extra["s"],
        axes=others,
        reference=best.reference,
        value=best.value,
        uncertainty=best.uncertainty,
        standing=here.standing,
        tied=here.list_tied(name_point),
    )


def rank_points(points: Sequence[Judged]) -> RankedRows:
    """Rank points by the number that decides: FID of generated images against train.

    Real images are ranked only where no generated ones are there, and another reference, the first,
    only where train is not. Rows are in the order of evaluations, where all are known, then of s.
    """
    points = sorted(select_generated(points) or points, key=lambda point: point.s)
    if all(point.evaluations for point in points):
        points.sort(key=lambda point: point.evaluations or 0)
    rows = [row for point in points for row in point.rows if row.metric == "fid"]
    references = [row.reference for row in rows]
    reference = PREFERRED if PREFERRED in references else references[0]
    return compare_rows([row for row in rows if row.reference == reference])


def select_generated(points: Sequence[Judged]) -> list[Judged]:
    """Return the points whose images were upsampled from generated ones, not from real ones."""
    return [point for point in points if point.augment not in REAL.values()]


def _group_families(points: Sequence[Judged]) -> dict[str, list[MetricRow]]:
    """Return the rows of each family by its name: "" of generated images, a kind of real ones."""
    families: dict[str, list[MetricRow]] = {}
    for point in points:
        name = point.augment if point.augment in REAL.values() else ""
        families.setdefault(name, []).extend(point.rows)
    return families


def choose_of_each(points: Sequence[Judged]) -> tuple[Chosen, ...]:
    """Return the best point of each kind of conditioning, compared with that kind alone."""
    kinds = dict.fromkeys(point.augment for point in points)
    return tuple(choose([point for point in points if point.augment == kind]) for kind in kinds)


def compare_points(points: Sequence[Judged]) -> list[Comparison]:
    """Return a verdict on each point among those of its family, by every metric and reference."""
    return [one for family in _group_families(points).values() for one in compare_family(family)]


def explain_verdicts(points: Sequence[Judged]) -> list[str]:
    """Return notes on the verdicts: which are missing and why, and which points stand apart.

    Where several points are as good as the best, another one says which difference is told.
    """
    families = _group_families(points)
    notes = [
        f"{name.replace('-', ' ')}: {line}" if name and len(families) > 1 else line
        for name, rows in families.items()
        for line in explain_left_out(rows)
    ]
    notes += rank_points(points).say_what_is_told()
    apart = [name for name, rows in families.items() if name and compare_family(rows)]
    return [*notes, *(APART.format(name) for name in apart if len(families) > 1)]


def conclude(points: Sequence[Judged]) -> str:
    """Return in one sentence how the points that `rank_points` ranks compare by FID."""
    return rank_points(points).conclude(name_point)


def entitle(points: Sequence[Judged]) -> str:
    """Return the same in a few words, as the title of a picture."""
    return rank_points(points).entitle(name_point)


def say_how_chosen(chosen: Chosen) -> str:
    """Return a note: by what the point is chosen, and which flags of `cdm upsample` set it."""
    flags = [_spell_flag(axis, value) for axis, value in {"s": chosen.s, **chosen.axes}.items()]
    what, kept = "s is" if len(flags) == 1 else "the setting is", ""
    if chosen.augment == "truncated":
        flags, kept = [*flags, " --augment truncated"], f" --keep-s {chosen.s}"
    return CHOICE.format(what=what, reference=chosen.reference, flags="".join(flags), kept=kept)


def _spell_flag(axis: str, value: Any) -> str:
    """Return the flag of `cdm upsample` that sets an axis, "" where it is left out."""
    if isinstance(value, bool):
        return f" --{'' if value else 'no-'}{spell(axis)}"
    return "" if value is None else f" --{spell(axis)} {quote(value)}"
