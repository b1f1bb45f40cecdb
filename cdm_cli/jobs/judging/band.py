"""What a plot shows of verdicts: a ring around what is as good as the best, a band around all."""

from collections.abc import Sequence
from typing import Any


def draw_undecided(axes: Any, at: Sequence[float], values: Sequence[float], reference: str) -> None:
    """Draw a ring at each (at, value), and a band from the lowest to the highest, if any."""
    if not values:
        return
    told = "the best" if len(values) == 1 else "as good as the best"
    axes.axhspan(min(values), max(values), color="0.85", zorder=0)
    axes.plot(
        at, values, "o", markersize=12, markerfacecolor="none", markeredgecolor="0.3",
        label=f"{told} against {reference}" if reference else told,
    )  # fmt: skip
