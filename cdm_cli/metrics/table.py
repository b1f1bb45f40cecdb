"""Numbers with everything they depend on: one row each, as text, JSON or CSV.

A number without its convention cannot be compared. Each row carries its own, and a table
says so in plain words when its rows do not share one.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cdm_cli.errors import MismatchError
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.verdicts import put_in_words

Labels = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How images became a number. Digests are hexadecimal SHA-256.

    samples_digest says which images, and is the one field in which comparable numbers differ.
    """

    num: int
    balance: str
    extractor: str
    extractor_digest: str
    resize: str
    resolution: int
    quantisation: str = "uint8"
    precision: str = "float32"
    seed: int = 0
    samples_digest: str = field(default="", compare=False)

    def list_differences(self, other: "Convention") -> list[str]:
        """Return the names of the fields in which two conventions differ."""
        names = [f.name for f in fields(self) if f.compare]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One number: what it measures, against what, how sure it is, and its convention.

    uncertainty is one standard deviation or error; uncertainty_of says which, and over what.
    corrected is the value less its bias (jackknife.py). without and without_two are what it would
    be without each group of samples, and each two; groups says of which: rows that share it are
    compared pair by pair. settings are those of the metric itself ("k": 3); extra labels a series
    ("s": 501).
    """

    metric: str
    value: float
    convention: Convention
    uncertainty: float | None = None
    uncertainty_of: str = ""
    corrected: float | None = None
    without: tuple[float, ...] = ()
    without_two: tuple[float, ...] = ()
    groups: str = ""
    reference: str = ""
    reference_num: int | None = None
    reference_digest: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def estimate(self) -> Estimate:
        """The number with what it would be without some of its samples."""
        return Estimate(self.value, self.without, self.without_two)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number beside another, both less their biases.

    point, against: the labels (`extra`) of both. difference: point minus against, with its
    standard error. verdict: "best", "as good as the best" or "worse" among all of the point's
    family, where `against` is the lowest (of `is` and `accuracy` the highest), and 0 apart from
    itself; of two stores "better", "worse" or "not told apart".
    """

    point: Labels
    metric: str
    reference: str
    against: Labels
    difference: float
    uncertainty: float
    verdict: str

    @classmethod
    def of(
        cls, row: MetricRow, against: MetricRow, verdict: str, difference: float, error: float
    ) -> "Comparison":
        """Return how a row stands beside another of the same metric and reference."""
        return cls(
            point=row.extra, metric=row.metric, reference=row.reference, against=against.extra,
            difference=difference, uncertainty=error, verdict=verdict,
        )  # fmt: skip

    def __str__(self) -> str:
        return put_in_words(self.verdict, self.difference, self.uncertainty)


@dataclass
class MetricTable:
    """Rows of one convention, unless the maker says that they are mixed, and how they compare."""

    rows: list[MetricRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    mixed: bool = False

    def add(self, row: MetricRow) -> None:
        """Append a row. Raises MismatchError for another convention, unless the table is mixed."""
        if self.rows and not self.mixed:
            differing = self.rows[0].convention.list_differences(row.convention)
            if differing:
                raise MismatchError(
                    f"{row.metric} and {self.rows[0].metric} differ in {', '.join(differing)}: "
                    "numbers of different conventions do not belong in one table",
                    next="make one table for each, or ask for a mixed one",
                )
        self.rows.append(row)

    def extend(self, rows: Iterable[MetricRow]) -> None:
        """Append several rows."""
        for row in rows:
            self.add(row)

    def note(self, line: str) -> None:
        """Add a warning or remark that belongs to the table, once."""
        if line not in self.notes:
            self.notes.append(line)

    def value(self, metric: str, reference: str | None = None) -> float:
        """Return the first value of a metric (against a reference). Raises KeyError if none."""
        return self.row(metric, reference).value

    def row(self, metric: str, reference: str | None = None) -> MetricRow:
        """Return the first row of a metric (against a reference). Raises KeyError if none."""
        for row in self.rows:
            if row.metric == metric and reference in (None, row.reference):
                return row
        raise KeyError(metric)

    @property
    def conventions(self) -> list[Convention]:
        """The distinct conventions, in order of appearance."""
        return list(dict.fromkeys(row.convention for row in self.rows))

    def gather_notes(self) -> list[str]:
        """Return the notes, and what differs between the conventions of a mixed table."""
        kinds = self.conventions
        names = sorted({name for kind in kinds for name in kinds[0].list_differences(kind)})
        mixed = f"rows of different conventions ({', '.join(names)}): not comparable as they stand"
        return [*self.notes, *([mixed] if names else [])]

    def header(self) -> list[str]:
        """Return the column titles of `lines`."""
        return [*self._columns()]

    def lines(self) -> list[list[str]]:
        """Return one list of cells for each row, for a terminal."""
        return [[*cells] for cells in zip(*self._columns().values(), strict=True)]

    def _columns(self) -> dict[str, list[str]]:
        """Return the cells of each column that the table has, by its title."""
        rows, kinds = self.rows, self.conventions
        labels = dict.fromkeys(label for row in rows for label in row.extra)
        columns = {label: [str(row.extra.get(label, "")) for row in rows] for label in labels}
        columns["metric"] = [row.metric for row in rows]
        columns["value"] = [f"{row.value:.5g}" for row in rows]
        columns["±"] = [_spell(row.uncertainty, 2) for row in rows]
        if any(row.corrected is not None for row in rows):
            columns["corrected"] = [_spell(row.corrected, 5) for row in rows]
        nums = (f" ({row.reference_num})" if row.reference_num else "" for row in rows)
        columns["against"] = [row.reference + num for row, num in zip(rows, nums, strict=True)]
        columns["num"] = [str(row.convention.num) for row in rows]
        if len(kinds) > 1:
            columns["convention"] = [chr(ord("A") + kinds.index(row.convention)) for row in rows]
        if self.comparisons:
            columns["verdict"] = [str(self.find_comparison(row) or "") for row in rows]
        return columns

    def find_comparison(self, row: MetricRow) -> Comparison | None:
        """Return the comparison of a row with the best of the table, None if none was made."""
        for one in self.comparisons:
            if (one.point, one.metric, one.reference) == (row.extra, row.metric, row.reference):
                return one
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the rows with their conventions, how they compare, and the notes, plainly."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "comparisons": [asdict(one) for one in self.comparisons],
            "notes": self.gather_notes(),
        }

    def to_csv(self) -> str:
        """Return one line for each row: every field of it, of its convention and its verdict."""
        records = [
            _flatten_row(row) | _flatten_comparison(self.find_comparison(row)) for row in self.rows
        ]
        columns = list(dict.fromkeys(column for record in records for column in record))
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()


def _spell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _flatten_row(row: MetricRow) -> dict[str, Any]:
    values = asdict(row)
    nested = {name: values.pop(name) for name in ("extra", "convention", "settings")}
    for name in ("without", "without_two"):
        values[name] = " ".join(map(repr, values[name]))
    return nested["extra"] | values | nested["convention"] | nested["settings"]


def _flatten_comparison(one: Comparison | None) -> dict[str, Any]:
    if one is None:
        return {}
    return {
        "compared_with": " ".join(map(str, one.against.values())),
        "difference": one.difference,
        "difference_uncertainty": one.uncertainty,
        "verdict": one.verdict,
    }
