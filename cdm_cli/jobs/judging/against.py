"""`cdm eval --against`: whether two stores differ, by every metric that knows its error."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cdm_cli.data.store import Store
from cdm_cli.metrics.comparisons import ALIKE, HIGHEST, subject, verdict_between
from cdm_cli.metrics.jackknife import difference
from cdm_cli.metrics.table import Comparison, MetricRow, MetricTable
from cdm_cli.names import WITH_ERRORS

UNPAIRED = "unpaired: {why}, so the errors of both numbers count"


def noise_seed(store: Store) -> int | None:
    """Return the seed that a store's samples were drawn with, None for other images."""
    seed = store.provenance.get("identity", {}).get("seed")
    return None if seed is None else int(seed)


def add_other(one: MetricTable, other: MetricTable, stores: Sequence[Path], *, seed: bool) -> None:
    """Add to one table the rows of another store, and how those of both compare.

    stores: the names of both. seed: whether they share it.
    """
    one.mixed = True
    theirs = {(row.metric, row.reference): row for row in _of(stores[1], other)}
    mine = _of(stores[0], one)
    one.rows[:] = [*mine, *theirs.values()]
    for note in other.notes:
        one.note(note)
    pairs = [(row, theirs.get((row.metric, row.reference))) for row in mine]
    for row, there in pairs:
        if there is not None and row.metric in WITH_ERRORS:
            _compare(one, row, there, seed=seed)


def _of(store: Path, table: MetricTable) -> list[MetricRow]:
    return [replace(row, extra={"store": str(store)}) for row in table.rows]


def _compare(table: MetricTable, row: MetricRow, other: MetricRow, *, seed: bool) -> None:
    """Compare two numbers pair by pair where their noise is the same, and say where it is not."""
    if not row.without or len(row.without) != len(other.without):
        table.note(f"no verdict by {subject(row.metric, row.reference)}: too few images")
        return
    same = row.groups == other.groups
    if not (seed and same):
        table.note(UNPAIRED.format(why="the ids differ" if not same else "they share no seed"))
    gap = difference(row.estimate, other.estimate, paired=seed and same)
    assert gap.corrected is not None
    assert gap.error is not None
    told = Comparison(
        point=row.extra,
        metric=row.metric,
        reference=row.reference,
        against=other.extra,
        difference=gap.corrected,
        uncertainty=gap.error,
        verdict=verdict_between(row.estimate, other.estimate, highest=row.metric in HIGHEST),
    )
    table.comparisons.append(told)


def conclusion(table: MetricTable) -> str:
    """Return what the first comparison says, in one sentence that a person can repeat."""
    if not table.comparisons:
        return "no number of the two stores could be compared"
    one = table.comparisons[0]
    mine, theirs = one.point["store"], one.against["store"]
    what = f"{subject(one.metric, one.reference)} of {_nums(table, one)} images"
    gap = f"{abs(one.difference):.2g} ± {one.uncertainty:.2g}"
    if one.verdict == ALIKE:
        return f"{what} does not tell {mine} and {theirs} apart: they differ by {gap}."
    return f"{mine} is {one.verdict} than {theirs} by {gap} in {what}."


def _nums(table: MetricTable, one: Comparison) -> str:
    rows = [row for row in table.rows if row.metric == one.metric]
    return " and ".join(dict.fromkeys(str(row.convention.num) for row in rows))
