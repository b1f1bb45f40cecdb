"""`cdm eval --against`: whether stores differ from another, by metrics that know their error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cdm_cli.data.store import open_store
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.metrics.comparisons import ALIKE, HIGHEST, name_subject, tell_apart
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.table import Comparison, MetricRow, MetricTable
from cdm_cli.metrics.verdicts import LEVEL, find_least_level
from cdm_cli.names import WITH_ERRORS

UNPAIRED = "unpaired: {why} ({names}), so the errors of both numbers count"


def join_tables(tables: Mapping[Path, MetricTable]) -> MetricTable:
    """Put the numbers of several stores into one table, each labelled with its store."""
    joined = MetricTable(mixed=True)
    for path, table in tables.items():
        joined.extend(replace(row, extra={"store": str(path)}) for row in table.rows)
        for note in table.notes:
            joined.note(note)
    return joined


def compare_stores(table: MetricTable, stores: Sequence[Path], against: Path) -> None:
    """Add how each of several stores compares with another, by each metric and reference.

    Of each of these the verdicts on all stores are wrong with a probability of 5 % at most
    (Bonferroni). Pairs of numbers are compared where both share ids and the seed of their noise.
    """
    theirs = {(row.metric, row.reference): row for row in _select_rows(table, against)}
    seed, level = _read_noise_seed(against), LEVEL / len(stores)
    for path in stores:
        shared = seed is not None and seed == _read_noise_seed(path)
        for row in _select_rows(table, path):
            other = theirs.get((row.metric, row.reference))
            if other is not None and row.metric in WITH_ERRORS:
                _compare(table, row, other, seed=shared, level=level)
    if len(stores) > 1:
        table.note(
            f"verdicts are on {len(stores)} stores at once: by each number any of them is wrong "
            "with 5 % at most"
        )
    least = max(
        (find_least_level(len(row.without)) for row in table.rows if row.without), default=0.0
    )
    if least > level:
        table.note(
            f"nothing can be told apart by some of these numbers: {len(stores)} stores ask for a "
            f"level of {level:.2g}, and their groups of images give {least:.2g} at best"
        )


def _select_rows(table: MetricTable, store: Path) -> list[MetricRow]:
    return [row for row in table.rows if row.extra == {"store": str(store)}]


def _read_noise_seed(path: Path) -> int | None:
    """Return the seed that a store's samples were drawn with, None for other images."""
    with open_store(path) as store:
        seed = read_identity(store.provenance).get("seed")
    return seed if isinstance(seed, int) else None


def _compare(
    table: MetricTable, row: MetricRow, other: MetricRow, *, seed: bool, level: float
) -> None:
    """Compare two numbers pair by pair where their noise is the same, and say where it is not."""
    if not row.without or len(row.without) != len(other.without):
        table.note(f"no verdict by {name_subject(row.metric, row.reference)}: too few images")
        return
    same = row.groups == other.groups
    if not (seed and same):
        names = f"{row.extra['store']} and {other.extra['store']}"
        why = "the ids differ" if not same else "they share no seed"
        table.note(UNPAIRED.format(why=why, names=names))
    mine, theirs = row.estimate, other.estimate
    verdict = tell_apart(mine, theirs, highest=row.metric in HIGHEST, level=level)
    gap = _measure_gap(mine, theirs, paired=seed and same)
    table.comparisons.append(Comparison.of(row, other, verdict, *gap))


def _measure_gap(one: Estimate, other: Estimate, *, paired: bool) -> tuple[float, float]:
    """Return one minus other, both less their biases, and its standard error.

    paired: what both samples share is cancelled; otherwise they count as independent.
    """
    gap = one.minus(other)
    errors = (gap.error,) if paired else (one.error, other.error)
    return gap.corrected or 0.0, math.hypot(*(error or 0.0 for error in errors))


def conclude_each(table: MetricTable) -> list[str]:
    """Return what the first comparison of each store says, in a sentence that can be repeated."""
    if not table.comparisons:
        return ["no number of the stores could be compared"]
    first: dict[str, Comparison] = {}
    for one in table.comparisons:
        first.setdefault(one.point["store"], one)
    return [_conclude(table, one) for one in first.values()]


def _conclude(table: MetricTable, one: Comparison) -> str:
    mine, theirs = one.point["store"], one.against["store"]
    what = f"{name_subject(one.metric, one.reference)} of {_list_nums(table, one)} images"
    gap = f"{abs(one.difference):.2g} ± {one.uncertainty:.2g}"
    if one.verdict == ALIKE:
        return f"{what} does not tell {mine} and {theirs} apart: they differ by {gap}."
    return f"{mine} is {one.verdict} than {theirs} by {gap} in {what}."


def _list_nums(table: MetricTable, one: Comparison) -> str:
    rows = [
        row
        for row in table.rows
        if row.metric == one.metric and row.extra in (one.point, one.against)
    ]
    return " and ".join(dict.fromkeys(str(row.convention.num) for row in rows))
