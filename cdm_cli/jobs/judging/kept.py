"""Tables of numbers that were written as JSON, read again; and those that are of one store."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict

from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.config import Settings
from cdm_cli.errors import CdmError
from cdm_cli.jobs.runtime.identity import advise_remaking
from cdm_cli.metrics.table import Comparison, MetricRow, MetricTable

LIMIT = 2**24
MOST = 200  # files that are looked into


class KeptTable(Settings):
    """What the JSON of every table of numbers has; it may have more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    rows: tuple[MetricRow, ...]
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()


def read_numbers(path: Path) -> MetricTable:
    """Read a table; raise BadInputError for a file that is none."""
    kept = read_settings(KeptTable, path, LIMIT, next=advise_remaking(path.parent, path.name))
    return MetricTable([*kept.rows], [*kept.notes], [*kept.comparisons], mixed=True)


def find_tables(store: Path, digest: str) -> Iterator[tuple[Path, MetricTable]]:
    """Yield the tables beside a store that are of its images, which have this digest."""
    for path in sorted(store.absolute().parent.glob("*.json"))[:MOST]:
        try:
            table = read_numbers(path)
        except CdmError:
            continue
        if any(row.convention.samples_digest == digest for row in table.rows):
            yield path, table
