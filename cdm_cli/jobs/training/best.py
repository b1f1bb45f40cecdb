"""The score of best.safetensors, in the file's own metadata, so that it outlives the process.

With it stands all that must be equal for another score to compare.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import BEST
from cdm_cli.errors import BadInputError
from cdm_cli.jobs.judging.probe_score import OF_THE_JUDGE
from cdm_cli.jobs.runtime.identity import check_same, complete
from cdm_cli.metrics.comparisons import ALIKE, tell_apart
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.table import MetricRow


@dataclass(frozen=True)
class Best:
    """The score of best.safetensors: the lowest so far, though others may be as good.

    judged_by: what must be equal for another to compare. jackknife: `groups`, `without` and
    `without_two` of its row (metrics/table.py); empty where an earlier version judged it.
    """

    step: int
    metric: str
    value: float
    judged_by: Mapping[str, Any]
    jackknife: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, step: int, row: MetricRow, judged_by: Mapping[str, Any]) -> "Best":
        """Take the score of a step from its row."""
        names = ("groups", "without", "without_two") if row.without else ()
        kept = {name: getattr(row, name) for name in names}
        return cls(step, row.metric, row.value, judged_by, kept)

    def text(self) -> str:
        """Return the score as the metadata hold it."""
        score = {"metric": self.metric, "value": self.value, "judged_by": dict(self.judged_by)}
        kept = {"jackknife": dict(self.jackknife)} if self.jackknife else {}
        return json.dumps(score | kept, sort_keys=True)

    def describe_beside(self, row: MetricRow) -> str:
        """Return how surely a row differs from this score, as "worse by d ± e"."""
        kept = self.jackknife
        if not kept or kept["groups"] != row.groups or not math.isfinite(row.value):
            return "how surely is not known"
        there = Estimate(self.value, tuple(kept["without"]), tuple(kept["without_two"]))
        gap = row.estimate.minus(there)
        verdict = tell_apart(row.estimate, there)
        by = f"{abs(gap.corrected or 0):.2g} ± {gap.error:.2g}"
        if verdict == ALIKE:
            return f"{ALIKE}, they differ by {by}"
        return f"{verdict} with certainty, by {by}"


def read_best(directory: Path) -> Best | None:
    """Read the score in the metadata of best.safetensors; None without that file.

    Raises BadInputError for a file whose metadata have no score.
    """
    path = directory / BEST
    if not path.exists():
        return None
    metadata = read_metadata(path)
    try:
        score = json.loads(metadata["score"])
        return Best(
            int(metadata["step"]), str(score["metric"]), float(score["value"]),
            dict(score["judged_by"]), _check_jackknife(score.get("jackknife", {})),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise BadInputError(
            f"{path} does not say what made it best",
            kept="it was left as it is",
            next="move it away, and --select begins anew",
        ) from None


def _check_jackknife(kept: Any) -> dict[str, Any]:
    """Return what `Best` holds of a jackknife. Raises KeyError, TypeError, ValueError for less."""
    if not kept:
        return {}
    without, two = (tuple(map(float, kept[name])) for name in ("without", "without_two"))
    if not without or len(two) not in (0, len(without)):
        raise ValueError("a jackknife of other groups")
    return {"groups": str(kept["groups"]), "without": without, "without_two": two}


def check_same_judgement(best: Best | None, now: Mapping[str, Any], directory: Path) -> None:
    """Raise WouldOverwriteError where the score that is there was judged by other rules."""
    if best is not None:
        later = [name for name in OF_THE_JUDGE if name not in now]  # which is opened after headers
        there = {name: told for name, told in best.judged_by.items() if name not in later}
        check_same(
            directory / BEST, "selection", _rename(complete(there, now)), _rename(now),
            next="repeat the flags that it was chosen with, or move it away",
        )  # fmt: skip


def _rename(judged_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of a score under the names by which `cdm train` is given them."""
    names = {name: f"sampling.{name}" for name in ("sampler", "steps", "variance")}
    names |= {name: f"select_{name}" for name in ("lowres", "lowres_digest", "num")}
    return {names.get(name, name): value for name, value in judged_by.items()}
