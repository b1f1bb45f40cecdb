"""Filling a store, block by block, with the samples of one stage, as `sample` and `upsample` do.

Sampling and writing overlap: a block is hashed and written while the next one is sampled.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.generate import SampleInputs, Steps, as_images, check_finite, generate
from cdm_cli.cascade.stage import Stage
from cdm_cli.data.pixels import move_channels_last
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import MemoryFloorError
from cdm_cli.jobs.runtime.device import describe, wait
from cdm_cli.jobs.runtime.session import Session, open_shared_store, wait_for_others
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.blocks import BlockWriter, describe_complete
from cdm_cli.jobs.sampling.ready import ReadyStage
from cdm_cli.jobs.sampling.work import MakeInputs, Work, adopt_block_size, make_spec
from cdm_cli.report import Report
from cdm_cli.startup import measure_first, tell_first_result
from cdm_cli.units import format_count

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SamplingResult:
    """The store that was written.

    made: samples of this run, of all its processes, which network_evaluations are of; the others
    were there before.
    """

    out: Path
    samples: int
    made: int
    resolution: int
    kept_s: tuple[int, ...]
    network_evaluations: int
    device: str


def join_arrays(batches: Sequence[Arrays], inputs: SampleInputs) -> Arrays:
    """Return what was made of consecutive rows as one, with the ids and labels of these."""
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert inputs.y is not None
    return {**arrays, "ids": inputs.ids.numpy(), "labels": inputs.y.numpy()}


@dataclass(frozen=True)
class Engine:
    """A stage on its device, and how it is run; compute batches have batch_size rows."""

    stage: Stage
    chain: Chain
    seed: int
    batch_size: int
    keep: tuple[int, ...] = ()

    @classmethod
    def of(cls, work: Work, ready: ReadyStage) -> "Engine":
        """Return the engine that samples a work with a stage that is ready."""
        size = ready.numerics.batch_size
        return cls(ready.stage, work.chain, work.sampling.seed, size, work.keep)

    def make_block(self, inputs: SampleInputs, meter: "Meter") -> Arrays:
        """Sample one block; return its arrays by dataset. Raises what `make_batch` raises."""
        num, size = len(inputs.ids), self.batch_size
        batches = [
            self.make_batch(inputs.select(slice(at, at + size)), meter)
            for at in range(0, num, size)
        ]
        return join_arrays(batches, inputs)

    def make_batch(self, inputs: SampleInputs, meter: "Meter") -> Arrays:
        """Sample one batch; return its images and kept states by dataset, without ids and labels.

        Raises MemoryFloorError where the batch does not fit into the device, and NotFiniteError.
        """
        try:
            return self._make(inputs, meter)
        except torch.OutOfMemoryError:
            smaller = self.batch_size // 2
            raise MemoryFloorError(
                f"the memory of {self.stage.device} does not hold "
                f"{format_count(self.batch_size, 'sample')} at a time",
                kept="finished blocks are complete",
                next=f"--batch-size {smaller} with another -o" if smaller else "a larger device",
            ) from None

    def _make(self, inputs: SampleInputs, meter: "Meter") -> Arrays:
        generated = generate(
            self.stage, self.chain, inputs, seed=self.seed, keep=self.keep,
            batch_size=self.batch_size, watch=meter.watch(len(inputs.ids)),
        )  # fmt: skip
        images = f"images/{self.stage.config.model.resolution}"
        z = {s: generated.z[s].half() for s in self.keep}
        check_finite(self.stage, *z.values())
        kept = {f"z/{s}": move_channels_last(z_s).cpu().numpy() for s, z_s in z.items()}
        return {images: as_images(self.stage, generated.x_0), **kept}


class Meter:
    """Shows progress at every network evaluation, and stops there when that is asked for."""

    def __init__(
        self, advance: Callable[[int, str], None], stop: Stop, num: int,
        describe_kept: Callable[[], str], done: int = 0,
    ) -> None:  # fmt: skip
        self._advance, self._stop = advance, stop
        self._num, self._done, self._describe_kept = num, done, describe_kept

    def watch(self, num: int) -> Callable[[Steps], Iterable[tuple[int, Tensor]]]:
        """Return what wraps the steps of a batch of num samples."""

        def wrap(steps: Steps) -> Iterator[tuple[int, Tensor]]:
            yield next(steps)  # x_T, which costs no evaluation
            for step in measure_first("first evaluation", steps):
                tell_first_result(partial(wait, step[1].device))
                self._advance(num, self._note())
                if self._stop.asked:
                    raise self._stop.error(self._describe_kept())
                yield step
            self._done += num
            self._advance(0, self._note())

        return wrap

    def _note(self) -> str:
        return f"{self._done} of {format_count(self._num, 'image')}"


def fill_store(
    work: Work, ready: ReadyStage, out: Path, session: Session, *, upto: int | None = None
) -> SamplingResult:
    """Create the store, or open the one that is there, and sample the blocks that it lacks.

    Process r of n makes each n-th block, or row of blocks that fill a batch, from the r-th on, and
    waits for the others. A block is cut into batches of ready.numerics.batch_size rows, each made
    by `generate`; a stop comes between two evaluations, and loses what is being sampled. upto: only
    the blocks that hold the first `upto` samples are made; None: all. Raises WouldOverwriteError
    where out was made by another command, StoppedError when asked to stop, MemoryFloorError where a
    batch does not fit into the device, BadInputError where samples are not finite or what is read
    is damaged, and DiskError.
    """
    spec = make_spec(adopt_block_size(work, out), ready.stage.digest, ready.numerics)
    with open_shared_store(out, spec, session) as store:
        part = store.parts[""]
        there = part.num_blocks - len(part.list_missing())
        if there and upto is None:
            session.report.say(
                f"{out}: {there} of {format_count(part.num_blocks, 'block', 'are')} there, "
                "continuing"
            )
        _tell_note(work.sampling.note, store, session.report)
        mine = _fill(part, Engine.of(work, ready), work.make_inputs, session, work.command, upto)
        made = sum(session.world.gather(mine))
    return SamplingResult(
        out=out,
        samples=len(work.samples),
        made=made,
        resolution=work.header.config.model.resolution,
        kept_s=work.keep,
        network_evaluations=made * work.chain.evaluations,
        device=describe(ready.stage.device),
    )


def _tell_note(note: str, store: Store, report: Report) -> None:
    """Say that a store that is continued does not get another note."""
    if note and note != (there := store.provenance.get("note")):
        told = "keeps the note that it was begun with" if there else "goes on without a note"
        report.say(f"{store.path}: {told}")


def _fill(
    part: Part,
    engine: Engine,
    make_inputs: MakeInputs,
    session: Session,
    command: str,
    upto: int | None,
) -> int:
    """Make the blocks that are missing and are this process's; return how many samples."""
    blocks, world = select_blocks(part, upto), session.world
    groups = group_blocks(blocks, engine.batch_size // part.block_size)[world.rank :: world.size]
    missing = set(part.list_missing(blocks))
    todo = [
        some for group in groups for some in join_consecutive([b for b in group if b in missing])
    ]
    own, num = _count_samples(part, groups), _count_samples(part, todo)
    total, done = (n * engine.chain.evaluations for n in (own, own - num))

    with Stop() as stop, session.report.track(command, total, "evaluations", done) as advance:
        longest = 0.0
        with BlockWriter() as writer:

            def describe_kept() -> str:
                writer.wait()
                return describe_complete(part, blocks)

            meter = Meter(advance, stop, own, describe_kept, own - num)
            for some in todo:
                start = time.monotonic()
                rows = range(part.list_rows(some[0]).start, part.list_rows(some[-1]).stop)
                arrays = engine.make_block(make_inputs(rows), meter)
                for b in some:
                    block = _cut(arrays, part.list_rows(b), rows.start)
                    writer.put(partial(part.write_block, b, block))
                longest = max(longest, time.monotonic() - start)
        wait_for_others(part, blocks, world, longest, lambda: stop.asked)
    return num


def select_blocks(part: Part, num: int | None) -> range:
    """Return the blocks of a part that hold its first num samples; None: all of them."""
    return range(part.num_blocks if num is None else -(-num // part.block_size))


def group_blocks(blocks: range, per_batch: int) -> list[range]:
    """Return blocks as they are made: one at a time, or as many as fill a batch."""
    size = max(1, per_batch)
    return [blocks[at : at + size] for at in range(0, len(blocks), size)]


def join_consecutive(blocks: Sequence[int]) -> list[range]:
    """Return ascending blocks as ranges without gaps."""
    found: list[range] = []
    for b in blocks:
        if found and found[-1].stop == b:
            found[-1] = range(found[-1].start, b + 1)
        else:
            found.append(range(b, b + 1))
    return found


def _count_samples(part: Part, groups: Sequence[range]) -> int:
    return sum(len(part.list_rows(b)) for group in groups for b in group)


def _cut(arrays: Arrays, rows: range, first: int) -> Arrays:
    return {name: array[rows.start - first : rows.stop - first] for name, array in arrays.items()}
