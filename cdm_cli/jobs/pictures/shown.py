"""The images of a store that pictures show: finished ones, at one resolution, blocks checked."""

from dataclasses import dataclass

import numpy as np

from cdm_cli.data.store import Part, Store
from cdm_cli.errors import MissingError
from cdm_cli.jobs.sampling.store_images import choose_part, choose_resolution, tell_part
from cdm_cli.report import Report


@dataclass(frozen=True)
class ShownImages:
    """A part of a store at one resolution. places: int64 [n], of the images that are there."""

    store: Store
    part: Part
    resolution: int
    places: np.ndarray

    def read_tiles(self, places: np.ndarray) -> dict[int, np.ndarray]:
        """Read images, their blocks checked: place -> uint8 [H, W, C]."""
        part, wanted = self.part, dict[int, list[int]]()
        for place in places.tolist():
            wanted.setdefault(place // part.block_size, []).append(place)
        tiles: dict[int, np.ndarray] = {}
        for block, inside in wanted.items():
            images = part.read_checked(block)[f"images/{self.resolution}"]
            start = part.list_rows(block).start
            tiles |= {place: images[place - start].copy() for place in inside}
        return tiles


def choose_shown(
    store: Store, split: str | None, resolution: int | None, report: Report
) -> ShownImages:
    """Choose the images of a store to show; split None: val, resolution None: the highest.

    Raises UsageError for a split or resolution that the store does not have, MissingError where
    no image is finished.
    """
    _, part = choose_part(store, split)
    tell_part(store, split, report)
    side = choose_resolution(store, part, resolution)
    return ShownImages(store, part, side, _find_finished(store, part))


def _find_finished(store: Store, part: Part) -> np.ndarray:
    blocks = (part.list_rows(b) for b in range(part.num_blocks) if part.is_done(b))
    done = [np.arange(block.start, block.stop) for block in blocks]
    if not done:
        raise MissingError(
            f"{store.path} has no finished image yet", next="run the command that makes it again"
        )
    return np.concatenate(done)


def name_classes(shown: ShownImages, places: np.ndarray) -> list[str]:
    """Return what the class of each image is called; one without a name by its number."""
    names = dict(enumerate(shown.store.classes))
    labels = np.asarray(shown.part.labels[places]).tolist()
    return [names.get(label, str(label)) for label in labels]


def take_first_of_classes(labels: np.ndarray, per_class: int) -> list[np.ndarray]:
    """Return the first places, per_class at most, of each class in labels [N], by ascending id."""
    return [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
