"""Several stores filled as one: a batch holds rows of several stores whose samples share a chain.

A sample is a function of (seed, stage, id), so that the rows beside it change nothing. Reading,
sampling and writing overlap: while a batch is sampled the next one is read, and the one before is
hashed and written.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.data.store import Store
from cdm_cli.jobs.sampling.blocks import BlockWriter
from cdm_cli.jobs.sampling.fill import Arrays, Engine, Meter, join_arrays, select_blocks
from cdm_cli.jobs.sampling.work import Work


@dataclass
class Filling:
    """A store that is being filled.

    finish: called once nothing is missing. upto: only the blocks that hold so many images from
    the first on are made; None: all. left: blocks that are not written yet.
    """

    work: Work
    store: Store
    finish: Callable[[], None]
    upto: int | None = None
    left: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the blocks that are missing."""
        self.left = len(self._missing)

    @property
    def _blocks(self) -> range:
        return select_blocks(self.store.parts[""], self.upto)

    @property
    def _missing(self) -> list[int]:
        return self.store.parts[""].list_missing(self._blocks)

    @property
    def num(self) -> int:
        """The number of images that it has in the end."""
        return self._count(self._blocks)

    @property
    def num_missing(self) -> int:
        """The number of images that are missing."""
        return self._count(self._missing)

    def _count(self, blocks: Iterable[int]) -> int:
        return sum(len(self.store.parts[""].list_rows(block)) for block in blocks)

    def read_blocks(self) -> Iterator["UnfinishedBlock"]:
        """Read the inputs of each block that is missing."""
        part = self.store.parts[""]
        for block in self._missing:
            yield UnfinishedBlock(self, block, self.work.make_inputs(part.list_rows(block)))

    def write_block(self, block: "UnfinishedBlock") -> None:
        """Write a block that is whole; call `finish` after the last one."""
        self.store.parts[""].write_block(block.number, block.join_sampled())
        self.left -= 1
        if not self.left:
            self.finish()


@dataclass
class UnfinishedBlock:
    """The inputs of one block of a store, and what was sampled of its first rows."""

    filling: Filling
    number: int
    inputs: SampleInputs
    sampled: list[Arrays] = field(default_factory=list[Arrays])

    @property
    def left(self) -> int:
        """The number of rows that are not sampled yet."""
        return len(self.inputs.ids) - sum(len(next(iter(rows.values()))) for rows in self.sampled)

    def join_sampled(self) -> Arrays:
        """Return what the datasets of a whole block hold, by name."""
        return join_arrays(self.sampled, self.inputs)


class BlockRows(NamedTuple):
    """Rows of a block that are in one batch."""

    block: UnfinishedBlock
    rows: slice


class SharedBatch(NamedTuple):
    """Rows that are sampled at once, in order."""

    pieces: tuple[BlockRows, ...]
    inputs: SampleInputs

    @property
    def work(self) -> Work:
        """The work of its first row, which is alike that of the others."""
        return self.pieces[0].block.filling.work

    @classmethod
    def of(cls, pieces: Iterable[BlockRows]) -> "SharedBatch":
        """Join the inputs of some rows."""
        held = tuple(pieces)
        return cls(held, SampleInputs.join([each.block.inputs.select(each.rows) for each in held]))


def cut_batches(
    fillings: Iterable[Filling], size: int, alike: Callable[[Work], Hashable]
) -> Iterator[SharedBatch]:
    """Cut what is missing into batches of `size` rows; the last rows of a kind may be fewer.

    alike: works for which it is the same share batches, if they follow each other. A store that
    lacks nothing is in no batch; its `finish` is called when its turn comes.
    """
    held: list[BlockRows] = []
    kind, num = None, 0
    for filling in fillings:
        if not filling.left:
            filling.finish()
            continue
        if held and alike(filling.work) != kind:
            yield SharedBatch.of(held)
            held, num = [], 0
        kind = alike(filling.work)
        for block in filling.read_blocks():
            start, whole = 0, len(block.inputs.ids)
            while start < whole:
                stop = min(whole, start + size - num)
                held.append(BlockRows(block, slice(start, stop)))
                start, num = stop, num + stop - start
                if num == size:
                    yield SharedBatch.of(held)
                    held, num = [], 0
    if held:
        yield SharedBatch.of(held)


def fill_stores(
    todo: Iterator[SharedBatch], engine_of: Callable[[Work], Engine], meter: Meter
) -> None:
    """Sample batches, and write each block that is whole.

    engine_of: called before each batch. `Filling.finish` is called in the thread that writes or
    the one that reads ahead. Raises what `Engine.make_batch` and `Part.write_block` raise.
    """
    with ThreadPoolExecutor(1, "cdm-read") as reader, BlockWriter() as writer:
        ahead: Future[SharedBatch | None] = reader.submit(next, todo, None)
        while (batch := ahead.result()) is not None:
            ahead = reader.submit(next, todo, None)
            arrays = engine_of(batch.work).make_batch(batch.inputs, meter)
            writer.put(partial(_write, batch, arrays))


def _write(batch: SharedBatch, arrays: Arrays) -> None:
    """Give each block its rows, and write those that are whole."""
    at = 0
    for block, rows in batch.pieces:
        end = at + rows.stop - rows.start
        block.sampled.append({name: array[at:end] for name, array in arrays.items()})
        at = end
        if block.left == 0:
            block.filling.write_block(block)
