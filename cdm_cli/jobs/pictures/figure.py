"""A matplotlib figure as the bytes of a PNG, the same for the same figure; its labels apart."""

import io
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator
from matplotlib.transforms import BboxBase

DPI = 120
APART = 5  # pixels, at least, from one label to the next
SLANT = 30  # degrees
ROOM = 0.95  # of the width of a figure, for a title


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, whose parts find their places by themselves."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def label_steps(axes: Axes) -> None:
    """Let a panel run along the steps of a training: whole numbers, none of them shortened."""
    axes.set_xlabel("step")
    whole = MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(whole)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)


def encode_figure(figure: Figure, **told: str) -> bytes:
    """Encode a figure, its labels apart. told: text that the file keeps, as PNG's tEXt has it."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names in scripts that the font does not have
        _spell_names(figure)
        separate_labels(figure)
        figure.savefig(held, format="png", dpi=DPI, metadata={"Software": None, **told})
    return held.getvalue()


def _spell_names(figure: Figure) -> None:
    """Let no name be read as a formula, whatever it is made of; powers at an axis are one."""
    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    for text in figure.findobj(Text):
        if text not in powers:
            text.set_parse_math(False)


def separate_labels(figure: Figure) -> None:
    """Let no label below a panel touch the next one, and no title be wider than the figure.

    matplotlib takes three letters for the width of a number. Of ticks that it chose there are
    fewer, of numbers at given places some are left out, and words slant.
    """
    figure.draw_without_rendering()
    for axes in figure.axes:
        if not are_apart(axes):
            _separate(axes)
    for title in [*figure.texts, *(axes.title for axes in figure.axes)]:
        share = title.get_window_extent().width / (ROOM * figure.bbox.width)
        title.set_fontsize(float(title.get_fontsize()) / max(1.0, share))


def are_apart(axes: Axes) -> bool:
    """Return whether no label below a panel touches the next one; those that slant do not."""
    boxes = [box for label, box in _find_boxes(axes) if label and box]
    return all(left.x1 + APART <= right.x0 for left, right in pairwise(boxes))


def _find_boxes(axes: Axes) -> list[tuple[str, BboxBase | None]]:
    """Return the labels below a panel that do not slant, and where they are if in view."""
    low, high = sorted(axes.get_xlim())
    slack = 1e-9 * (high - low)
    labels = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [
        (
            text.get_text(),
            text.get_window_extent() if low - slack <= at <= high + slack else None,
        )
        for at, text in labels
        if not text.get_rotation()
    ]


def _separate(axes: Axes) -> None:
    locator, count = axes.xaxis.get_major_locator(), len(axes.get_xticks())
    if isinstance(locator, MaxNLocator):
        while count > 2 and not are_apart(axes):
            count -= 1
            locator.set_params(nbins=count)
        return
    boxes = _find_boxes(axes)
    if all(_is_number(label) for label, _ in boxes):
        axes.set_xticks(axes.get_xticks(), _leave_out(boxes))
    else:
        axes.tick_params(axis="x", rotation=SLANT)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")


def _leave_out(boxes: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the labels, "" for each that would touch the last one before it."""
    kept, end = list[str](), float("-inf")
    for label, box in boxes:
        stays = bool(box) and end + APART <= box.x0
        kept.append(label if stays else "")
        end = box.x1 if stays else end
    return kept


def _is_number(label: str) -> bool:
    return label.replace(".", "", 1).isdecimal()
