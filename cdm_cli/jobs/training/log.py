"""What a training run logs: `metrics.jsonl`, and the same as events of TensorBoard."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.cascade.files import read_bytes
from cdm_cli.data import durable
from cdm_cli.names import METRICS_FILE, MOST_STEPS

NO_EVENTS = (
    "no events for TensorBoard, which is not installed (pip install tensorboard); "
    f"{METRICS_FILE} and loss.png have the same numbers"
)
METRICS_LIMIT = 2**30


class Metrics:
    """`metrics.jsonl`, one row of numbers per line, and TensorBoard events if it is installed.

    step: where the run goes on; rows of later steps are dropped, as they are written again.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._path = directory / METRICS_FILE
        self._truncate(step)
        self._board = open_tensorboard(directory / "tensorboard", step)

    @property
    def has_events(self) -> bool:
        """Whether events for TensorBoard are written."""
        return self._board is not None

    def _truncate(self, step: int) -> None:
        """Drop the rows after a step: they will be written again."""
        if not self._path.exists():
            return
        lines = read_bytes(self._path, METRICS_LIMIT).splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and _read_step(line) <= step]
        if kept != lines:
            durable.write_file_atomically(self._path, b"".join(kept))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row of numbers by name, one of them "step", to the file and to the events."""
        durable.append(self._path, (json.dumps(dict(row)) + "\n").encode())
        if self._board is None:
            return
        for name, value in row.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, int(row["step"]))

    def show(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture uint8 [H, W, 3] to the events; `metrics.jsonl` holds numbers alone."""
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Close the file of events, if there is one."""
        if self._board is not None:
            self._board.close()


def _read_step(line: bytes) -> float:
    return float(_parse_row(line).get("step", "inf"))


def _parse_row(line: bytes) -> dict[str, Any]:
    """Return a row, or an empty one for what is none: half a line, another program's."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and 0 <= step <= MOST_STEPS else {}


def read_metrics(directory: Path, name: str) -> dict[int, float]:
    """Return the finite values of one name in `metrics.jsonl`, by step; skip damaged rows."""
    path = directory / METRICS_FILE
    lines = read_bytes(path, METRICS_LIMIT).splitlines() if path.exists() else []
    rows = [(row, row.get(name)) for row in map(_parse_row, lines)]
    return {row["step"]: float(x) for row, x in rows if isinstance(x, int | float) and isfinite(x)}


def open_tensorboard(directory: Path, step: int) -> Any:
    """Return a SummaryWriter that forgets what came after a step, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)
