"""Samples in memory, and reading them from a store."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from cdm_cli.api.asked import list_numbers, make_options
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


@dataclass(frozen=True)
class Rows:
    """Which images are read: of which resolution and how many, None: the highest, and all."""

    resolution: Annotated[int | None, Ge(1)] = None
    num: Annotated[int | None, Ge(1)] = None


def read(
    store: Store | Path | str,
    *,
    split: str | None = None,
    resolution: int | None = None,
    num: int | None = None,
    z: int | Sequence[int] = (),
) -> Samples:
    """Read a finished store into memory, every block compared with its digest.

    split: "train" or "val" of prepared data, by default val. resolution: by default the highest.
    num: how many: of real images of all classes alike, of samples the first. z: times s whose
    states are read as well. Raises CdmError for what is not there, and for a store that is damaged
    or unfinished.
    """
    asked = make_options(Rows, resolution=resolution, num=num)
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(open_store(store))
        opened.require_finished()
        _, part = choose_part(opened, split)
        side, times = (
            choose_resolution(opened, part, asked.resolution),
            choose_kept_times(list_numbers(z)),
        )
        for s in times:
            check_states(opened, part, s)
        tell_rows(opened, split, asked.num, choose_report(None))
        rows = choose_rows(opened, part, asked.num)
        part.check(rows)
        return Samples(
            np.array(part.images(side)[rows]),
            np.array(part.read_labels(rows)),
            np.array(part.ids[rows]),
            {s: np.array(part.z(s)[rows]) for s in times},
        )
