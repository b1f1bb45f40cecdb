"""The front of a sweep: which points are worth their network evaluations (metrics/pareto.py)."""

from collections.abc import Sequence
from typing import Any

from cdm_cli.jobs.sweep.choice import Judged, name_point, rank_points
from cdm_cli.metrics.comparisons import are_comparable, name_subject
from cdm_cli.metrics.pareto import find_front
from cdm_cli.settings import Settings
from cdm_cli.units import format_count


class Placed(Settings):
    """Where a point stands between evaluations and FID against one reference.

    evaluations: of the network, for one image. on_front: True unless a point that costs no more is
    certain to be better. against: the lowest of the points that cost no more. difference: how much
    higher the FID of this point is than that one's, both less their biases; difference_uncertainty:
    its standard error.
    """

    point: dict[str, Any]
    evaluations: int
    reference: str
    value: float
    uncertainty: float | None
    on_front: bool
    against: dict[str, Any]
    difference: float
    difference_uncertainty: float


def place_points(points: Sequence[Judged]) -> tuple[Placed, ...]:
    """Return the place of each point, the cheapest first, at one cost the lowest FID first.

    Returns () where all points cost the same, where some cost is not known, and where some number
    was kept without those that leave out a group of images each, which tell its error.
    """
    rows = rank_points(points).rows
    costs = {tuple(point.labels.items()): point.evaluations for point in points}
    known = (costs[tuple(row.extra.items())] for row in rows)
    paid = [cost for cost in known if cost is not None]
    if len(paid) < len(rows) or len(set(paid)) < 2 or not are_comparable(rows):
        return ()
    placed = [
        Placed(
            point=row.extra,
            evaluations=cost,
            reference=row.reference,
            value=row.value,
            uncertainty=row.uncertainty,
            on_front=place.on_front,
            against=rows[place.against].extra,
            difference=place.difference,
            difference_uncertainty=place.error,
        )
        for row, cost, place in zip(
            rows, paid, find_front(paid, [row.estimate for row in rows]), strict=True
        )
    ]
    return tuple(sorted(placed, key=lambda one: (one.evaluations, one.value)))


def say_front(placed: Sequence[Placed]) -> str:
    """Return the front in one sentence: the lowest point of each cost, and how many more are on it.

    "" where there is no front.
    """
    if not placed:
        return ""
    on = [one for one in placed if one.on_front]
    costs = dict.fromkeys(one.evaluations for one in on)
    told = [_describe_level([one for one in on if one.evaluations == cost]) for cost in costs]
    what = f"evaluations and {name_subject('fid', placed[0].reference)}"
    return (
        f"{len(on)} of {format_count(len(placed), 'point', 'are')} on the front of {what}: "
        f"{'; '.join(told)}."
    )


def _describe_level(level: Sequence[Placed]) -> str:
    lowest = f"{name_point(level[0].point)}, FID {level[0].value:.4g}"
    more = f", and {len(level) - 1} more" if len(level) > 1 else ""
    return f"{level[0].evaluations} for {lowest}{more}"
