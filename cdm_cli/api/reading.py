"""Samples in memory, and reading them from a store."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdm_cli.api.warned import choose_report
from cdm_cli.data.store import Store, open_store
from cdm_cli.jobs.sampling.store_images import (
    check_states,
    choose_part,
    choose_resolution,
    choose_rows,
    tell_rows,
)
from cdm_cli.jobs.sampling.work import choose_kept_times

NOTHING: Mapping[int, Any] = MappingProxyType({})


class Samples(NamedTuple):
    """Images, and what belongs to each of them; arrays as a store holds them.

    images: uint8 [N, H, W, C]. labels: int64 [N], indices of classes. ids: int64 [N], which with
    seed and stage fix all noise. z: for each time s that was kept, float16 [N, H, W, C].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    z: Mapping[int, NDArray[np.float16]] = NOTHING


def read(
    store: Store | Path | str,
    *,
    split: str | None = None,
    resolution: int | None = None,
    num: int | None = None,
    z: Sequence[int] = (),
) -> Samples:
    """Read a finished store into memory, every block compared with its digest.

    split: "train" or "val" of prepared data, by default val. resolution: by default the highest.
    num: how many: of real images of all classes alike, of samples the first. z: times s whose
    states are read as well. Raises CdmError for what is not there, and for a store that is damaged
    or unfinished.
    """
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(open_store(store))
        opened.require_finished()
        _, part = choose_part(opened, split)
        side, times = choose_resolution(opened, part, resolution), choose_kept_times(z)
        for s in times:
            check_states(opened, part, s)
        tell_rows(opened, split, num, choose_report(None))
        rows = choose_rows(opened, part, num)
        part.check(rows)
        return Samples(
            np.array(part.images(side)[rows]),
            np.array(part.read_labels(rows)),
            np.array(part.ids[rows]),
            {s: np.array(part.z(s)[rows]) for s in times},
        )
