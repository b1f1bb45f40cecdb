"""What `cdm eval` hands back to whoever shows it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cdm_cli.jobs.judging.against import conclusion
from cdm_cli.metrics.table import MetricRow, MetricTable


class EvalResult:
    """What `cdm eval` found. table: every number with its whole convention."""

    def __init__(
        self,
        store: Path,
        table: MetricTable,
        neighbours: list[dict[str, Any]],
        written: list[Path],
        against: Path | None = None,
    ) -> None:
        self.store, self.table, self.against = store, table, against
        self.neighbours, self.written = neighbours, written

    def model_dump(self) -> dict[str, Any]:
        """Return what a command shows: numbers, their uncertainty, and one convention."""
        rows = self.table.rows
        shown: dict[str, Any] = {
            "store": str(self.store),
            **self._compared(),
            "metrics": [
                {
                    **row.extra,
                    "metric": row.metric,
                    "value": row.value,
                    "uncertainty": row.uncertainty,
                    "corrected": row.corrected,
                    "reference": row.reference,
                    "real_images": row.reference_num,
                    **({"jackknife": _jackknife(row)} if row.without else {}),
                }
                for row in rows
            ],
            "uncertainty": {row.metric: row.uncertainty_of for row in rows if row.uncertainty_of},
            "convention": self.table.conventions[0].as_dict() if rows else {},
            "references": {
                row.reference: row.reference_digest for row in rows if row.reference_num
            },
            "settings": {row.metric: row.settings for row in rows if row.settings},
        }
        if self.neighbours:
            shown["nearest"] = self.neighbours
        if self.written:
            shown["written"] = [str(path) for path in self.written]
        return shown | {"notes": self.table.all_notes()}

    def _compared(self) -> dict[str, Any]:
        """Return how two stores compare, where there are two."""
        if self.against is None:
            return {}
        told = [asdict(one) for one in self.table.comparisons]
        sentence = conclusion(self.table)
        return {"against": str(self.against), "conclusion": sentence, "comparisons": told}


def _jackknife(row: MetricRow) -> dict[str, Any]:
    return {"groups": row.groups, "without": row.without, "without_two": row.without_two}
