"""The same ids of several stores side by side: input and output, or one image over s (Figure 7)."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from cdm_cli.data.store import Store
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.pictures.shown import ShownImages, name_classes, take_first_of_classes
from cdm_cli.jobs.pictures.tiles import Sheet, enlarge, make_rgb
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.metrics.order import rank_in_class
from cdm_cli.units import format_count


def lay_side_by_side(
    shown: Sequence[ShownImages], heads: Sequence[str], *, num: int, per_class: int | None = None
) -> Sheet:
    """Lay out num ids that all stores have, one in a row; or per_class of each class in one row.

    Smaller images are enlarged by nearest neighbour to the largest. Raises MismatchError where
    the stores share no id, or say differently which class one has.
    """
    ids = _find_shared_ids(shown)
    places = [_find_places(one, ids) for one in shown]
    _check_classes(shown, places, ids)
    labels = np.asarray(shown[0].part.labels[places[0]])
    firsts = spread_over_classes(labels, num)
    rows = take_first_of_classes(labels, per_class) if per_class else np.split(firsts, len(firsts))
    chosen = np.concatenate(rows)
    pairs = zip(shown, places, strict=True)
    columns = _make_alike([_read_column(one, where[chosen]) for one, where in pairs])
    tiles = dict(enumerate(tile for row in zip(*columns, strict=True) for tile in row))
    names = name_classes(shown[0], places[0][[row[0] for row in rows]])
    if not per_class:
        names = [f"{name} ({id})" for name, id in zip(names, ids[chosen].tolist(), strict=True)]
    ends = np.cumsum([len(row) * len(shown) for row in rows])
    laid = list(zip(names, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    title = f"the same {format_count(len(chosen), 'id')} of {len(shown)} stores"
    return Sheet(tiles, laid, title, (*heads,) * max(map(len, rows)), together=len(shown))


def _find_shared_ids(shown: Sequence[ShownImages]) -> np.ndarray:
    """Return the ids of finished images that all stores have, ascending."""
    ids = reduce(np.intersect1d, (np.asarray(one.part.ids[one.places]) for one in shown))
    if not len(ids):
        raise MismatchError(
            f"{' and '.join(str(one.store.path) for one in shown)} have no image of the same id",
            kept="nothing was written",
            next="stores that were made from one another, or from the same images",
        )
    return ids


def _find_places(shown: ShownImages, ids: np.ndarray) -> np.ndarray:
    """Return where images of these ids are, of which the store has each."""
    there = np.asarray(shown.part.ids[shown.places])
    order = np.argsort(there, kind="stable")
    return shown.places[order[np.searchsorted(there, ids, sorter=order)]]


def _check_classes(shown: Sequence[ShownImages], places: list[np.ndarray], ids: np.ndarray) -> None:
    """Raise MismatchError naming the first id that is of another class in another store."""
    first = np.array(name_classes(shown[0], places[0]))
    for one, where in zip(shown[1:], places[1:], strict=True):
        here = np.array(name_classes(one, where))
        differing = np.flatnonzero(first != here)
        if len(differing):
            at = differing[0]
            raise MismatchError(
                f"id {ids[at]} is {str(first[at])!r} in {shown[0].store.path} and "
                f"{str(here[at])!r} in {one.store.path}: these are not the same images",
                kept="nothing was written",
                next="stores that were made from one another, or from the same images",
            )


def spread_over_classes(labels: np.ndarray, num: int) -> np.ndarray:
    """Return num places, or all, of as many classes as possible, each as often as the others."""
    _, firsts = np.unique(labels, return_index=True)
    rank = rank_in_class(labels)
    if len(firsts) > num:  # of some classes one each, from the first to the last
        return firsts[np.linspace(0, len(firsts) - 1, num).round().astype(np.int64)]
    chosen = np.lexsort((labels, rank))[:num]
    return chosen[np.lexsort((rank[chosen], labels[chosen]))]


def _read_column(shown: ShownImages, places: np.ndarray) -> list[np.ndarray]:
    tiles = shown.read_tiles(places)
    return [tiles[place] for place in places.tolist()]


def _make_alike(columns: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Return all images of the largest side, in as many channels as the others."""
    side = max(column[0].shape[0] for column in columns)
    channels = {column[0].shape[-1] for column in columns}
    made = [[enlarge(tile, side) for tile in column] for column in columns]
    return made if len(channels) == 1 else [[make_rgb(tile) for tile in column] for column in made]


def name_column(store: Store, resolution: int) -> str:
    """Return the head of a store's column: its name, and at which s it was upsampled."""
    said = read_identity(store.provenance)
    if said.get("command") != "upsample":
        return f"{store.path.stem}\n{resolution}×{resolution}"
    kind = " truncated" if said.get("augment") == "truncated" else ""
    return f"{store.path.stem}\ns = {said.get('s')}{kind}"
