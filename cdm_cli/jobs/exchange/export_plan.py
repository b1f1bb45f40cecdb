"""Which images of a store are exported; they are read in order, each block checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cdm_cli.data.images import MODES
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import UsageError
from cdm_cli.jobs.sampling.store_images import choose_part, choose_resolution, choose_rows
from cdm_cli.names import ExportFormat
from cdm_cli.options.files import ExportOptions
from cdm_cli.options.outputs import is_npz

SCHEMA = "cdm-export/1"


class ExportBatch(NamedTuple):
    """Images of one block: uint8 [n, H, W, C], labels and ids int64 [n]; first: their place."""

    first: int
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class ExportSelection:
    """The images that are exported: rows int64 [N] of a part, at one resolution."""

    store: Store
    part: Part
    rows: np.ndarray
    resolution: int
    format: ExportFormat

    @property
    def identity(self) -> dict[str, Any]:
        """What another run must share to continue this one, as JSON."""
        return {
            "schema": SCHEMA,
            "store": self.store.digest,
            "part": self.part.name,
            "resolution": self.resolution,
            "num": len(self.rows),
            "format": self.format,
        }

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.part.count_channels(self.resolution)

    def read_batches(self) -> Iterator[ExportBatch]:
        """Yield the chosen images in order, each block read once and checked.

        Raises BadInputError naming the samples of a damaged block.
        """
        blocks = self.rows // self.part.block_size
        name = f"images/{self.resolution}"
        for b in np.unique(blocks).tolist():
            places = np.flatnonzero(blocks == b)
            inside = self.rows[places] - b * self.part.block_size
            block = self.part.read_checked(b)
            yield ExportBatch(
                int(places[0]), block[name][inside], block["labels"][inside], block["ids"][inside]
            )


def select_images(store: Store, options: ExportOptions) -> ExportSelection:
    """Choose the images to export.

    Raises UsageError for a part, a resolution or a number that the store does not have, and for
    JPEGs of images with alpha.
    """
    _, part = choose_part(store, options.split)
    resolution = choose_resolution(store, part, options.resolution)
    kind: ExportFormat = options.format or ("npz" if is_npz(options.out) else "png")
    if kind == "jpeg" and part.count_channels(resolution) in (2, 4):
        mode = MODES[part.count_channels(resolution)]
        raise UsageError(f"--format jpeg: JPEG has no alpha, the images are {mode}", next="png")
    return ExportSelection(store, part, choose_rows(store, part, options.num), resolution, kind)
