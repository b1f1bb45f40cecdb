"""Making and judging the points of a sweep that are missing.

A process that is alone fills each batch with rows of several points, which share one loading, one
compilation and one recorded graph; a thread judges each point while the next ones are sampled.
Other processes and hosts with the same -o take points that nobody has begun: whoever writes a store
holds its lock. The processes of one job (`--gpus N`) share the rows of each point instead.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from cdm_cli.data import lock
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.identity import chain_fields
from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.jobs.runtime.session import GLANCE, Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.blocks import LARGEST
from cdm_cli.jobs.sampling.fill import Engine, Meter, fill_store
from cdm_cli.jobs.sampling.numerics import check_same_numerics
from cdm_cli.jobs.sampling.together import Filling, cut_batches, fill_together
from cdm_cli.jobs.sampling.work import Work, spec_of, use_its_blocks
from cdm_cli.jobs.sweep.choice import name_of
from cdm_cli.jobs.sweep.judges import Bench, PointJudge
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.shared import Loaded, open_both
from cdm_cli.jobs.sweep.table import write_start
from cdm_cli.options.sweeping import SweepOptions

PATIENCE = 600.0  # seconds without a new sample of others that end a wait


def fill_points(
    options: SweepOptions, sweep: Sweep, missing: Sequence[Point], command: str, session: Session
) -> None:
    """Make and judge the missing points, and wait for those that other processes make.

    Raises StoppedError when asked to stop, or where a point of another process makes no progress
    for PATIENCE seconds; what `open_both` raises.
    """
    panel, loaded = open_both(options, _set_together(sweep.points, session), session)
    session.lead(lambda: write_start(sweep, command))
    judge = PointJudge(sweep, panel, options.sampling.seed)
    with lock.directory(sweep.out, alone=False):
        makers = Makers(options.command, session, loaded, judge, len(missing))
        if session.world.size > 1:
            makers.make_in_turn(missing)
            return
        while missing:
            missing = makers.make_together(missing)
            if missing:
                missing = _wait_for(missing, session)


def _set_together(points: Sequence[Point], session: Session) -> list[Point]:
    """Return the points with the batch that a GPU may fill from the rows of all of them.

    On a CPU, and with several processes, they stay as they are: a batch is that of `cdm upsample`,
    and the samples are the same to the bit.
    """
    if session.device.type != "cuda" or session.world.size > 1:
        return list(points)
    most = min(LARGEST, sum(len(point.work.rows) for point in points))
    return [replace(point, work=replace(point.work, together=most)) for point in points]


def _batch_key(work: Work) -> str:
    """Return a text that is equal for works that may share a batch: weights, chain and seed."""
    sampling = work.sampling
    fields = chain_fields(work.header.config, work.chain, sampling.seed)
    return json.dumps({"weights": sampling.weights, **fields})


@dataclass
class Makers:
    """Makes and judges points with one loaded stage. num: points to be made; done: finished."""

    command: str
    session: Session
    loaded: Loaded
    judge: PointJudge
    num: int
    done: int = field(default=0, init=False)

    def make_in_turn(self, points: Sequence[Point]) -> None:
        """Make one point after another, its rows shared among the processes of the job."""
        for point in points:
            self.session.report.say(f"{self.command}: {name_of(point.labels)}")
            fill_store(point.work, self.loaded.ready_for(point.work), point.samples, self.session)
            self._tell(point, self.judge.keep(point, self.judge(point)))

    def make_together(self, points: Sequence[Point]) -> list[Point]:
        """Make the points that no other process makes, in shared batches; return the others."""
        total, done = _evaluations(points)
        report, size = self.session.report, self.loaded.ready.numerics.batch_size
        with ExitStack() as stack:
            bench = stack.enter_context(Bench(self.judge, self._tell))
            taken = Taken(self.loaded, points, stack, bench)
            stop = stack.enter_context(Stop())
            track = report.track(self.command, total, "evaluations", done)
            advance = stack.enter_context(track)
            rows = sum(len(point.work.rows) for point in points)
            meter = Meter(advance, stop, rows, lambda: "finished blocks and points are complete")

            def engine_of(work: Work) -> Engine:
                bench.settle()
                stage = self.loaded.ready_for(work).stage
                return Engine(stage, work.chain, work.sampling.seed, size)

            todo = cut_batches(taken.fillings(), size, _batch_key)
            fill_together(todo, engine_of, meter, taken.hand_over)
            bench.settle(wait=True)
        return taken.elsewhere

    def _tell(self, point: Point, told: str) -> None:
        self.done += 1
        name = f"{name_of(point.labels)} ({self.done} of {self.num})"
        self.session.report.say(f"{self.command}: {name}: {told}")


def _evaluations(points: Sequence[Point]) -> tuple[int, int]:
    """Return how many evaluations the points take in all, and how many of them are already done."""
    total = left = 0
    for point in points:
        each, rows = point.work.chain.evaluations, len(point.work.rows)
        total += rows * each
        left += (_count_pending(point) if point.samples.exists() else rows) * each
    return total, total - left


def _count_pending(point: Point) -> int:
    with open_store(point.samples) as store:
        part = store.parts[""]
        return sum(len(part.block_range(block)) for block in part.pending())


@dataclass
class Taken:
    """The points that this process takes: it locks the store of each as it comes to it.

    elsewhere: the points whose stores other processes have locked.
    """

    loaded: Loaded
    points: Sequence[Point]
    stack: ExitStack
    bench: Bench
    elsewhere: list[Point] = field(default_factory=list[Point])
    _points: dict[Any, Point] = field(default_factory=dict[Any, Point])

    def fillings(self) -> Iterator[Filling]:
        """Lock the store of each point and yield it to be filled; the judge gets complete ones."""
        for point in self.points:
            store = self._claim(point)
            if store is None:
                continue
            filling = Filling(point.work, self.stack.enter_context(store))
            self._points[store.path] = point
            if filling.left:
                yield filling
            else:
                self.hand_over(filling)

    def hand_over(self, filling: Filling) -> None:
        """Give a complete store to the judge."""
        self.bench.give(self._points[filling.store.path], filling.store)

    def _claim(self, point: Point) -> Store | None:
        """Return the store of a point, locked; None where another process makes or has made it."""
        numerics, digest = self.loaded.ready.numerics, self.loaded.digest(point.work)
        try:
            spec = spec_of(use_its_blocks(point.work, point.samples), digest, numerics)
            store = resume_or_create(point.samples, spec)
        except StoppedError:
            self.elsewhere.append(point)
            return None
        if point.judged.exists():
            store.close()
            return None
        there = store.provenance.get("numerics") or {}
        check_same_numerics(there, numerics, point.samples)
        return store


def _wait_for(points: Sequence[Point], session: Session) -> list[Point]:
    """Wait until another process lets go of a point, or all are judged; return the points left.

    Raises StoppedError when asked to stop, or where no sample is made for PATIENCE seconds.
    """
    session.report.say(f"waiting for {len(points)} points that other processes make")
    left, seen, since = list(points), -1, time.monotonic()
    with Stop() as stop:
        while True:
            left = [point for point in left if not point.judged.exists()]
            held = [_holder_of(point) for point in left]
            if not left or not all(held):
                return left
            now = sum(_count_pending(point) for point in left)
            if now != seen:
                seen, since = now, time.monotonic()
            if stop.asked or time.monotonic() - since > PATIENCE:
                why = stop.asked or f"no sample was made for {PATIENCE:.0f} s"
                raise StoppedError(
                    f"stopped waiting: {why}; {held[0]}",
                    kept="what is judged is kept",
                    next="the same command continues",
                )
            time.sleep(GLANCE)


def _holder_of(point: Point) -> str:
    """Return who has locked the store of a point, "" where nobody has."""
    try:
        open_store(point.samples, writable=True).close()
    except StoppedError as error:
        return error.what
    return ""
