"""Which point of a sweep is chosen, and how surely: a verdict on every point.

The points of generated images are one family, and those of the real ones of each split, which are
upsampled too, others: what is best of these says nothing of what is best of those.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from cdm_cli.jobs.sweep.point import REAL, Kind, said
from cdm_cli.metrics.comparisons import RankedRows, compare_rows, comparisons, explain_left_out
from cdm_cli.metrics.table import Comparison, MetricRow
from cdm_cli.settings import Settings

PREFERRED = "train"  # the reference by whose FID the paper chooses
APART = "{} points are compared among themselves"


class Judged(Settings):
    """The file of one point: its numbers, and what they are of.

    axes: its values besides s. decided: what these decide of what identifies its samples.
    evaluations: of the network, for one image; None where an earlier version judged it.
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
        """What its rows carry."""
        return {"augment": self.augment, "s": self.s, **self.axes}


class Chosen(Settings):
    """The point of the lowest FID against one reference.

    axes: its values besides s. standing: the verdict on it, which need not be "best"; None where
    that is not known. tied: the other points that are as good as the best, None where that is not
    known.
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


def name_of(point: dict[str, Any]) -> str:
    """Return what a person calls a point; at s = 0 there is no kind."""
    kind = "" if point["augment"] == "none" else f"{point['augment']} "
    others = [named(axis, point[axis]) for axis in point if axis not in ("augment", "s")]
    more = f" ({', '.join(others)})" if others else ""
    return f"{kind}s = {point['s']}{more}"


def named(axis: str, value: Any) -> str:
    """Return one value on an axis in words: a sampler says itself what it is."""
    return said(value) if axis == "sampler" else f"{axis.replace('_', ' ')} = {said(value)}"


def choose(points: Sequence[Judged]) -> Chosen:
    """Return the generated point of the lowest FID against train, as the paper selects.

    Against the first reference there is where there is no train. Of equals, the one of the fewest
    evaluations, then of the smallest s.
    """
    here = deciding(points)
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
        tied=here.names_of_tied(name_of),
    )


def deciding(points: Sequence[Judged]) -> RankedRows:
    """Compare the numbers that decide; of real images where no others are there."""
    points = sorted(generated(points) or points, key=lambda point: point.s)
    if all(point.evaluations for point in points):
        points.sort(key=lambda point: point.evaluations or 0)
    rows = [row for point in points for row in point.rows if row.metric == "fid"]
    references = [row.reference for row in rows]
    reference = PREFERRED if PREFERRED in references else references[0]
    return compare_rows([row for row in rows if row.reference == reference])


def generated(points: Sequence[Judged]) -> list[Judged]:
    """Return the points that are not of real images."""
    return [point for point in points if point.augment not in REAL.values()]


def _families(points: Sequence[Judged]) -> dict[str, list[MetricRow]]:
    """Return the rows of each family by its name: "" of generated images, a kind of real ones."""
    families: dict[str, list[MetricRow]] = {}
    for point in points:
        name = point.augment if point.augment in REAL.values() else ""
        families.setdefault(name, []).extend(point.rows)
    return families


def best_of_each(points: Sequence[Judged]) -> tuple[Chosen, ...]:
    """Return the best point of each kind of augmentation, among those of its kind."""
    kinds = dict.fromkeys(point.augment for point in points)
    return tuple(choose([point for point in points if point.augment == kind]) for kind in kinds)


def compared(points: Sequence[Judged]) -> list[Comparison]:
    """Return a verdict on each point among those of its family, by every metric and reference."""
    return [one for family in _families(points).values() for one in comparisons(family)]


def unknown(points: Sequence[Judged]) -> list[str]:
    """Return what a reader of the verdicts must know: which there are not, and of which family."""
    families = _families(points)
    notes = [
        f"{name.replace('-', ' ')}: {line}" if name and len(families) > 1 else line
        for name, rows in families.items()
        for line in explain_left_out(rows)
    ]
    apart = [name for name, rows in families.items() if name and comparisons(rows)]
    return [*notes, *(APART.format(name) for name in apart if len(families) > 1)]


def concluded(points: Sequence[Judged]) -> str:
    """Return what was found, in one sentence: by FID, of generated images."""
    return deciding(points).conclusion(name_of)


def title(points: Sequence[Judged]) -> str:
    """Return what was found, in a few words."""
    return deciding(points).title(name_of)
