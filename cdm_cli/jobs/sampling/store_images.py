"""The images of a store that a job takes: of which part, which rows; checked as they are read."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cdm_cli.data.store import Part, Store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.metrics.order import choose_balanced
from cdm_cli.report import Report
from cdm_cli.units import format_count

RowIndices = np.ndarray  # int64 [n], places within a part


def choose_part(store: Store, split: str | None) -> tuple[str, Part]:
    """Return the part of a store and its name: of prepared data the split, by default val.

    Raises UsageError for a split that the store does not have.
    """
    name = split if split is not None else ("" if "" in store.parts else "val")
    if name in store.parts:
        return name, store.parts[name]
    if split is None and len(store.parts) == 1:
        return next(iter(store.parts.items()))
    if "" in store.parts:
        raise UsageError(
            f"--split {name}: {store.path} holds samples, which have no splits", next="leave it out"
        )
    there = " and ".join(store.parts)
    raise UsageError(
        f"--split {name}: {store.path} has the splits {there}", next="choose one, or leave it out"
    )


def tell_part(store: Store, split: str | None, report: Report) -> None:
    """Say which part is taken where none was named and there is no val."""
    if split is None and len(store.parts) == 1 and not {"", "val"} & store.parts.keys():
        report.say(f"{store.path} has no val: taking {next(iter(store.parts))}, its only part")


def tell_classes(store: Store, part: Part, num: int | None, report: Report) -> None:
    """Say that the first num samples lack classes of the store, where they do."""
    if num is None or store.kind != "samples" or num >= part.num:
        return
    labels = np.asarray(part.labels)
    has, of = (len(np.unique(some)) for some in (labels[:num], labels))
    if has < min(num, of):
        report.say(
            f"{store.path}: its first {num} images, which are taken, are of {has} of its {of} "
            "classes"
        )


def tell_rows(store: Store, split: str | None, num: int | None, report: Report) -> None:
    """Say which part is taken where none was named, and where its first num samples lack classes.

    That is for whoever takes rows as `choose_rows` does.
    """
    tell_part(store, split, report)
    tell_classes(store, choose_part(store, split)[1], num, report)


def tell_kind(store: Store, report: Report) -> None:
    """Say where a store that stands for real images holds samples; some compare these."""
    if store.kind == "samples":
        report.say(f"{store.path} holds samples, no real images")


def choose_rows(store: Store, part: Part, num: int | None) -> RowIndices:
    """Return which images are taken: the first num samples, or num real images of all classes.

    Samples that cdm made are interleaved by class, so that a prefix is balanced; imported ones
    stand as they were found (`tell_classes`). Real images may be sorted, and are chosen by a hash
    of their ids. Raises UsageError where there are fewer.
    """
    if num is None:
        return np.arange(part.num)
    if num > part.num:
        raise UsageError(
            f"--num {num}: {store.path} has {format_count(part.num, 'image')}",
            next=f"--num {part.num}",
        )
    if store.kind == "samples":
        return np.arange(num)
    return choose_balanced(np.asarray(part.ids), np.asarray(part.labels), num)


def choose_resolution(store: Store, part: Part, asked: int | None) -> int:
    """Return the resolution that is taken, by default the highest.

    Raises UsageError for one that the part does not have.
    """
    resolution = asked or max(part.resolutions)
    if resolution not in part.resolutions:
        has = ", ".join(map(str, part.resolutions))
        raise UsageError(
            f"--resolution {resolution}: {store.path} has {has}",
            next=f"--resolution {max(part.resolutions)}",
        )
    return resolution


class ImageArrays:
    """Images in memory, at places 0..N-1, with their labels, ids and kept states.

    images: uint8 [N, H, W, C]. labels, ids: int64 [N]. z: kept states by their time, float16
    [N, H, W, C].
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, ids: np.ndarray, z: Mapping[int, np.ndarray]
    ) -> None:
        self.images, self.labels, self.ids, self.z = images, labels, ids, z

    def take_ids(self, places: range) -> np.ndarray:
        """Return int64 ids of places."""
        return np.asarray(self.ids[self._locate(places)])

    def take_labels(self, places: range) -> np.ndarray:
        """Return int64 labels of places."""
        return np.asarray(self.labels[self._locate(places)])

    def take_images(self, places: range) -> Tensor:
        """Return the images, uint8 [n, C, H, W]."""
        images = np.ascontiguousarray(self.images[self._locate(places)])
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def take_z_s(self, places: range, s: int) -> Tensor:
        """Return the kept states, float16 [n, H, W, C]."""
        return torch.from_numpy(np.ascontiguousarray(self.z[s][self._locate(places)]))

    def _locate(self, places: range) -> RowIndices | slice:
        return slice(places.start, places.stop)


class StoreImages(ImageArrays):
    """Images at chosen rows of a part, by place among these; a block is checked before its use."""

    def __init__(self, part: Part, resolution: int, rows: RowIndices) -> None:
        z = {s: part.z(s) for s in part.z_times}
        super().__init__(part.images(resolution), part.map_member("labels"), part.ids, z)
        self._part, self._rows = part, rows

    def _locate(self, places: range) -> RowIndices:
        rows = self._rows[places.start : places.stop]
        self._part.check(rows)
        return rows


def check_states(store: Store, part: Part, s: int) -> None:
    """Raise MismatchError naming the times that were kept unless z_s is in the store.

    z_0 of a reverse process is its image itself; what no process made has none.
    """
    if s in part.z_times or (s == 0 and find_maker(store)):
        return
    there = ", ".join(map(str, part.z_times))
    maker = find_maker(store)
    again = f"cdm {maker} … --keep-s {s} with another -o, or " if maker else ""
    raise MismatchError(
        f"{store.path} has no z_s for s = {s}, "
        + (f"only for {there}" if there else "nor any other"),
        kept="no output was made",
        next=f"{again}--augment non-truncated",
    )


def find_maker(store: Store) -> str:
    """Return the command that made a store by a reverse process, "" where none did."""
    command = read_identity(store.provenance).get("command")
    return command if command in ("sample", "upsample") else ""
