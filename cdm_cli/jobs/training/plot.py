"""`loss.png`: the loss over steps, raw and smoothed, and how well the weights were judged to be.

Drawn from `metrics.jsonl` alone, with every sample grid and at the end.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdm_cli.cascade.files import read_bytes
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.errors import CdmError
from cdm_cli.jobs.training.accuracy import ACCURACY
from cdm_cli.jobs.training.log import Metrics, read_metrics

LOSS = "loss.png"
STEP = "cdm-step"  # the text of the file that says up to which step it is drawn
LIMIT = 2**26
WINDOW = 3, 0.02  # losses that are smoothed over: at least so many, or this share of all
JUDGED = {
    ACCURACY: "accuracy on val",
    "fid_train": "FID against train",
    "fid_val": "FID against val",
}


class LossPlot:
    """Draws the losses so far, in the first process alone."""

    def __init__(self, directory: Path, every: int, *, leads: bool) -> None:
        self.every, self._directory, self._leads = every, directory, leads

    def is_missing(self, step: int) -> bool:
        """Whether the plot of a step is not there."""
        return read_last_step(self._directory / LOSS) != step

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Write the plot over that of an earlier step."""
        encoded = draw_loss_plot(self._directory, step) if self._leads else None
        if encoded:
            write_file_atomically(self._directory / LOSS, encoded)


def read_last_step(path: Path) -> int | None:
    """Return the step that a plot says it is drawn to, None for no plot of ours."""
    try:
        data = io.BytesIO(read_bytes(path, LIMIT))
        with Image.open(data, formats=("PNG",)) as picture:
            return int(picture.info.get(STEP, ""))
    except (CdmError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def draw_loss_plot(directory: Path, step: int | None = None) -> bytes | None:
    """Draw what `metrics.jsonl` has up to a step, None for all, as a PNG; None without a loss."""
    from cdm_cli.jobs.pictures import figure as pictures  # matplotlib takes 0.3 s

    losses = read_metrics(directory, "loss")
    step = max(losses, default=0) if step is None else step
    losses = {at: loss for at, loss in losses.items() if at <= step}
    if not losses:
        return None
    figure = pictures.make_figure(7, 4.2)
    axes = figure.add_subplot(1, 1, 1)
    _draw_losses(axes, losses)
    pictures.label_steps(axes)
    judged = {name: read_metrics(directory, name) for name in JUDGED}
    _draw_judged(axes, {name: found for name, found in judged.items() if found})
    axes.set_title(f"{directory.resolve().name}, step {step}")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    return pictures.encode_figure(figure, **{STEP: str(step)})


def _draw_losses(axes: Any, losses: Mapping[int, float]) -> None:
    steps, values = np.array([*losses]), np.array([*losses.values()])
    alone = "." if len(steps) == 1 else None  # no line leads there
    axes.plot(steps, values, color="0.8", linewidth=0.8, label="loss")
    positive = values.min() > 0
    mean = np.exp(smooth(np.log(values))) if positive else smooth(values)
    axes.plot(steps, mean, color="tab:blue", marker=alone, label="loss, smoothed")
    if positive:
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    axes.margins(x=0.01)


def _draw_judged(axes: Any, judged: Mapping[str, Mapping[int, float]]) -> None:
    """Draw accuracy, or FIDs, over an axis on the right."""
    if not judged:
        return
    right = axes.twinx()
    for colour, (name, found) in zip(
        ("tab:red", "tab:orange", "tab:green"), judged.items(), strict=False
    ):
        right.plot([*found], [*found.values()], ".-", color=colour, label=JUDGED[name])
    right.set_ylabel(next(JUDGED[name] for name in judged).partition(" ")[0])
    if ACCURACY in judged:
        right.set_ylim(0, 1.02)


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the exponential moving averages of values [N]: each of a value and all before it.

    The weights are divided by their sum, so that the first averages, of fewer values, count too.
    """
    least, share = WINDOW
    decay = 1 - 1 / max(least, share * len(values))
    mean, weight, means = 0.0, 0.0, np.empty(len(values))
    for place, value in enumerate(values.tolist()):
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + 1 - decay
        means[place] = mean / weight
    return means
