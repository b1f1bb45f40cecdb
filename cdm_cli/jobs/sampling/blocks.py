"""Blocks of samples: the unit of work and of resume, and what several processes share.

Which rows a block holds depends on the number of samples and their size, and a store keeps the
blocks that it has, so that neither the number of processes nor an interruption changes a byte.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self

import numpy as np

from cdm_cli.data.schema import PartName, PartSpec, fit_block_size
from cdm_cli.data.store import Part
from cdm_cli.errors import StoppedError, UsageError
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.report import Report
from cdm_cli.units import format_count

SMALLEST, LARGEST = 64, 1024
BLOCK_BYTES = 2**26  # of images of files, which every process holds in memory
BLOCKS = 16  # at least so many, where there are samples enough
SHARES = 8  # their number is a multiple of that or just below: 2, 4 or 8 processes have as many


def choose_block_size(num: int) -> int:
    """Return how many samples a block holds: a multiple of 8 in 64..1024.

    Small stores have small blocks, so that several processes have work and little is lost.
    """
    blocks = max(BLOCKS, SHARES * math.ceil(num / (SHARES * LARGEST)))
    return max(SMALLEST, 8 * math.ceil(num / blocks / 8))


def choose_image_block_size(parts: Mapping[PartName, PartSpec]) -> int:
    """Return how many images of files a block holds: as `choose_block_size`, 64 MiB at most."""
    most = max(part.num for part in parts.values())
    return min(choose_block_size(most), fit_block_size(parts, BLOCK_BYTES))


def select_samples(num: int, i_of_n: str | None) -> range:
    """Return the samples of `--part I/N`: whole blocks, as evenly as that allows.

    Raises UsageError where there are fewer blocks than parts.
    """
    if i_of_n is None:
        return range(num)
    index, count = map(int, i_of_n.split("/"))
    size = choose_block_size(num)
    blocks = -(-num // size)
    if count > blocks:
        raise UsageError(
            f"--part {i_of_n}: parts are whole blocks of {size}, "
            f"{format_count(num, 'sample', 'have')} {blocks}",
            next=f"--part {min(index, blocks)}/{blocks}",
        )
    first, last = (size * (blocks * i // count) for i in (index - 1, index))
    return range(first, min(last, num))


class BlockWriter:
    """Writes in a thread of its own while the next block is being sampled.

    One block waits at a time, so memory stays flat. A block counts once `Part.write_block` has
    synced it; one that a kill interrupts is made again, one that was handed over before a stop is
    written. A failed write is raised by the next `put` or `wait`, or at the end, also at a stop,
    which can be had again.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "cdm-write")
        self._writing: Future[None] | None = None

    def put(self, write: Callable[[], None]) -> None:
        """Hand over what writes a block; waits for the one before."""
        self.wait()
        self._writing = self._thread.submit(write)

    def wait(self) -> None:
        """Wait until everything handed over is on the disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, StoppedError):
                self.wait()
        finally:
            self._thread.shutdown(wait=True)


def write_missing(
    part: Part, make: Callable[[int], Mapping[str, np.ndarray]], what: str, report: Report
) -> int:
    """Make and write each block of a part that is missing; return how many images that were.

    make: returns the arrays of a block, by dataset. what: the report calls this so. Raises
    StoppedError between two blocks when asked to stop, DiskError, and what `make` raises.
    """
    missing = part.list_missing()
    num = sum(len(part.list_rows(b)) for b in missing)
    with Stop() as stop, report.track(what, part.num, "images", part.num - num) as advance:
        with BlockWriter() as writer:
            for b in missing:
                if stop.asked:
                    writer.wait()
                    raise stop.error(describe_complete(part))
                writer.put(partial(part.write_block, b, make(b)))
                advance(len(part.list_rows(b)), "")
    return num


def describe_complete(part: Part, blocks: range | None = None) -> str:
    """Say how many blocks of a part, or of some of its blocks, are complete."""
    total = part.num_blocks if blocks is None else len(blocks)
    return (
        f"{total - len(part.list_missing(blocks))} of {format_count(total, 'block', 'are')} "
        "complete"
    )
