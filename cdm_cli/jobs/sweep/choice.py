"""Which point of a sweep is chosen, and how surely: a verdict on every point.

The points of generated images are one family, and those of real ones, which are upsampled too,
another: what is best of these says nothing of what is best of those.
"""

from collections.abc import Sequence
from typing import Any, Literal

from cdm_cli.config import Settings
from cdm_cli.jobs.sweep.plan import Kind
from cdm_cli.metrics.comparisons import Found, comparisons, found, left_out
from cdm_cli.metrics.table import Comparison, MetricRow

PREFERRED = "train"  # the reference by whose FID the paper chooses
REAL = "ground-truth points are compared among themselves"


class Judged(Settings):
    """The file of one point: its numbers, and what they are of."""

    schema_version: Literal[1] = 1
    sweep: str
    augment: Kind
    s: int
    samples: str
    parents: tuple[dict[str, str], ...]
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...]


class Chosen(Settings):
    """The point of the lowest FID against one reference.

    standing: the verdict on it, which need not be "best"; None where that is not known.
    tied: the other points that are as good as the best, None where that is not known.
    """

    augment: Kind
    s: int
    metric: Literal["fid"] = "fid"
    reference: str
    value: float
    uncertainty: float | None
    standing: str | None = None
    tied: tuple[str, ...] | None = None


def name_of(point: dict[str, Any]) -> str:
    """Return what a person calls a point; at s = 0 there is no kind."""
    kind = "" if point["augment"] == "none" else f"{point['augment']} "
    return f"{kind}s = {point['s']}"


def choose(points: Sequence[Judged]) -> Chosen:
    """Return the generated point of the lowest FID against train, as the paper selects.

    Against the first reference there is where there is no train. Of equals, the smallest s.
    """
    here = _found(points)
    best = here.lowest
    return Chosen(
        augment=best.extra["augment"],
        s=best.extra["s"],
        reference=best.reference,
        value=best.value,
        uncertainty=best.uncertainty,
        standing=here.standing,
        tied=here.tied(name_of),
    )


def _found(points: Sequence[Judged]) -> Found:
    """Compare the numbers that decide; of real images where no others are there."""
    generated, real = _families(points)
    rows = [row for row in generated or real if row.metric == "fid"]
    references = [row.reference for row in rows]
    reference = PREFERRED if PREFERRED in references else references[0]
    rows = [row for row in rows if row.reference == reference]
    return found(sorted(rows, key=lambda row: row.extra["s"]))


def _families(points: Sequence[Judged]) -> tuple[list[MetricRow], list[MetricRow]]:
    """Return the rows of generated images, and those of real ones."""
    real = [row for point in points if point.augment == "ground-truth" for row in point.rows]
    return [row for point in points if point.augment != "ground-truth" for row in point.rows], real


def best_of_each(points: Sequence[Judged]) -> tuple[Chosen, ...]:
    """Return the best point of each kind of augmentation, among those of its kind."""
    kinds = dict.fromkeys(point.augment for point in points)
    return tuple(choose([point for point in points if point.augment == kind]) for kind in kinds)


def compared(points: Sequence[Judged]) -> list[Comparison]:
    """Return a verdict on each point among those of its family, by every metric and reference."""
    return [one for family in _families(points) for one in comparisons(family)]


def unknown(points: Sequence[Judged]) -> list[str]:
    """Return what a reader of the verdicts must know: which there are not, and of which family."""
    generated, real = _families(points)
    notes = [f"ground truth: {line}" for line in left_out(real)] if generated else left_out(real)
    return [*left_out(generated), *notes, *([REAL] if generated and comparisons(real) else [])]


def concluded(points: Sequence[Judged]) -> str:
    """Return what was found, in one sentence: by FID, of generated images."""
    return _found(points).conclusion(name_of)


def title(points: Sequence[Judged]) -> str:
    """Return what was found, in a few words."""
    return _found(points).title(name_of)
