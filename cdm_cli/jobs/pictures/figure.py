"""A matplotlib figure as the bytes of a PNG, the same for the same figure."""

import io
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 120


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, whose parts find their places by themselves."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encode_figure(figure: Figure, **told: str) -> bytes:
    """Encode a figure. told: text that the file keeps, by keyword, as PNG's tEXt has it."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names in scripts that the font does not have
        figure.savefig(held, format="png", dpi=DPI, metadata={"Software": None, **told})
    return held.getvalue()
