"""The result of `cdm eval`, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.jobs.judging.against import conclude_each
from cdm_cli.metrics.comparisons import list_names
from cdm_cli.metrics.table import Convention, MetricRow, MetricTable

ERROR = "±: one standard error or deviation"
CORRECTED = "; corrected: less the bias of so few images"
WHOLE = "convention and digests: -v; everything, for machines: --json"
MEANS = {  # what a number says, in units of people; docs/metrics.md has the definitions
    "fid": "fid: how far samples as a whole are from real images, 0 is best",
    "fid_gap": "fid_gap: far above 0, the stage knows its training images too well",
    "is": "is: how sure the judge is of each image and how many kinds it sees, high is best",
    "kid": "kid: as fid, without its bias of few images, 0 is best",
    "precision": "precision: share of samples that look real",
    "recall": "recall: share of real images that could be samples",
    "density": "density: as precision, counted by how many real images are near, 1 is as real ones",
    "coverage": "coverage: share of real images that have a sample nearby",
    "accuracy": "accuracy: share of samples that the judge calls by their label",
    "nn_distance": "nn_distance: from a sample to the nearest training image, the median",
    "nn_distance_val": "nn_distance_val: from a val image to the nearest training image",
    "nn_close": "nn_close: share of samples nearer to train than 95 % of val images are; far above "
    "0.05 they are copies",
}


class EvalResult(NamedTuple):
    """What `cdm eval` found. table: every number with its whole convention.

    neighbours: lines of `list_nearest`. written: files. against: what the stores are compared with.
    """

    stores: Sequence[Path]
    table: MetricTable
    neighbours: list[dict[str, Any]]
    written: list[Path]
    against: Path | None

    def model_dump(self) -> dict[str, Any]:
        """Return what a command shows: numbers, their uncertainty, and one convention."""
        rows, names = self.table.rows, [str(path) for path in self.stores]
        shown: dict[str, Any] = {
            **({"stores": names} if len(names) > 1 else {"store": names[0]}),
            **self._list_comparison(),
            "metrics": [
                {
                    **row.extra,
                    "metric": row.metric,
                    "value": row.value,
                    "uncertainty": row.uncertainty,
                    "corrected": row.corrected,
                    "reference": row.reference,
                    "real_images": row.reference_num,
                    **({"convention": asdict(row.convention)} if row.extra else {}),
                    **({"jackknife": _dump_jackknife(row)} if row.without else {}),
                }
                for row in rows
            ],
            "uncertainty": {row.metric: row.uncertainty_of for row in rows if row.uncertainty_of},
            "convention": asdict(self.table.conventions[0]) if rows else {},
            "references": {
                row.reference: row.reference_digest for row in rows if row.reference_num
            },
            "settings": {row.metric: row.settings for row in rows if row.settings},
        }
        if self.neighbours:
            shown["nearest"] = self.neighbours
        if self.written:
            shown["written"] = [str(path) for path in self.written]
        return shown | {"notes": self.table.gather_notes()}

    def show_in_short(self) -> list[str | list[dict[str, str]]]:
        """Return the numbers, then what they mean and of what they are."""
        table, kinds = self.table, self.table.conventions
        told = conclude_each(self.table) if self.against is not None else []
        cells = [dict(zip(table.header(), line, strict=True)) for line in table.lines()]
        if len(kinds) == 1:
            cells = [{title: row[title] for title in row if title != "num"} for row in cells]
        metrics = dict.fromkeys(MEANS.get(row.metric, "") for row in table.rows)
        error = ERROR + (CORRECTED if "corrected" in table.header() else "")
        means = [line for line in (error, *metrics) if line]
        where = [f"written: {', '.join(map(str, self.written))}"] if self.written else []
        said = [*means, *map(self._describe_convention, kinds), *table.gather_notes(), *where]
        return [*told, cells, *said, WHOLE]

    def _describe_convention(self, convention: Convention) -> str:
        """Return of what the numbers of one convention are."""
        mine = (row for row in self.table.rows if row.convention == convention)
        stores = list(dict.fromkeys(row.extra.get("store", str(self.stores[0])) for row in mine))
        each = "each of " if len(stores) > 2 else ""
        return (
            f"of {convention.num} images of {each}{list_names(stores)} ({convention.balance}), "
            f"{convention.resolution}×{convention.resolution}, seen by {convention.extractor}"
        )

    def _list_comparison(self) -> dict[str, Any]:
        """Return how the stores compare with another, where there is one."""
        if self.against is None:
            return {}
        told = [asdict(one) for one in self.table.comparisons]
        said = " ".join(conclude_each(self.table))
        return {"against": str(self.against), "conclusion": said, "comparisons": told}


def _dump_jackknife(row: MetricRow) -> dict[str, Any]:
    return {"groups": row.groups, "without": row.without, "without_two": row.without_two}
