"""Pictures of a Classification Accuracy Score: Figure 5 of the paper, and Figures 9 and 10."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cdm_cli.jobs.cas.plan import CasWork, TrainingSet
from cdm_cli.jobs.pictures.figure import encode_figure, make_figure
from cdm_cli.jobs.pictures.tiles import Sheet, choose_scale, draw_sheet, encode_png, make_rgb

COLUMNS = 6  # images of a class, of samples and of real ones
REAL, SAMPLES = "tab:blue", "tab:red"
NAME_LENGTH = 24
NAMED = 20  # as many classes have their names below them


def draw_plot(lines: Sequence[dict[str, Any]], best: Sequence[int], worst: Sequence[int]) -> bytes:
    """Draw each class's accuracy after real images (blue) and samples (red), and the extremes."""
    figure = make_figure(11, 4.5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_accuracies(left, lines)
    _draw_gains(right, [lines[place] for place in (*best, *reversed(worst))])
    return encode_figure(figure)


def _draw_accuracies(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    shown = [line for line in lines if line["tested"]]
    shown.sort(key=lambda line: -line["real_top1"])
    places = np.arange(len(shown))
    size = 24 if len(shown) < 100 else 6
    real, samples = ([line[name] for line in shown] for name in ("real_top1", "top1"))
    axes.scatter(places, real, 2 * size, "none", edgecolors=REAL, label="trained on real images")
    axes.scatter(places, samples, size, SAMPLES, label="trained on samples")
    if len(shown) <= NAMED:
        axes.set_xticks(places, [_label_class(line) for line in shown], rotation=40, ha="right")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("classes, by accuracy after real images")
    axes.set_ylabel("top-1 accuracy on validation images")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def _draw_gains(axes: Axes, shown: Sequence[dict[str, Any]]) -> None:
    shown = list(reversed(shown))
    places = np.arange(len(shown))
    gained = [line["gain"] for line in shown]
    colours = [SAMPLES if gain > 0 else REAL for gain in gained]
    axes.barh(places, gained, xerr=[line["gain_error"] for line in shown], color=colours)
    axes.set_yticks(places, [_label_class(line) for line in shown])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain in top-1 by samples instead of real images")


def _label_class(line: dict[str, Any]) -> str:
    """Return the name of a class, shortened, and its id."""
    return f"{line['class'][:NAME_LENGTH]} ({line['id']})"


def draw_extremes(work: CasWork, classes: Sequence[int]) -> bytes:
    """Draw a row for each class: samples of it on the left, real training images on the right."""
    side = work.recipe.resolution
    tiles = {0: np.full((side, side, 3), 255, np.uint8)}
    rows = [(_name_class(work, y), _fill_row(work, y, tiles)) for y in classes]
    heads = ("samples", *[""] * (COLUMNS - 1), " ", "real images", *[""] * (COLUMNS - 1))
    return encode_png(draw_sheet(Sheet(tiles, rows, heads=heads), choose_scale(side)))


def _name_class(work: CasWork, y: int) -> str:
    return f"{work.classes[y][:NAME_LENGTH]} ({y})"


def _fill_row(work: CasWork, y: int, tiles: dict[int, np.ndarray]) -> np.ndarray:
    """Add the images of a class to tiles; return their places, 0 for a gap or a lack."""
    row: list[int] = []
    for training in (work.samples, work.real):
        found = np.flatnonzero(training.images.labels == y)[:COLUMNS]
        for image in _read_images(training, found):
            tiles[len(tiles)] = image
            row.append(len(tiles) - 1)
        row += [0] * (COLUMNS - len(found) + 1)
    return np.array(row[:-1])


def _read_images(training: TrainingSet, places: np.ndarray) -> list[np.ndarray]:
    """Read images as uint8 [H, W, 3], their blocks checked."""
    read = (training.images.read(np.array([place]))[0] for place in places)
    return [make_rgb(x.permute(1, 2, 0).numpy()) for x in read]
