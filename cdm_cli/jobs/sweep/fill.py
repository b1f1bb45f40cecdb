"""Making and judging the points of a sweep that are missing.

A process that is alone makes them in shared batches, each judged while the next ones are sampled.
Other processes and hosts with the same -o take points that nobody has begun: whoever writes a store
holds its lock. The processes of one job (`--gpus N`) share the rows of each point instead.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from cdm_cli.data import lock
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.session import GLANCE, Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.blocks import LARGEST
from cdm_cli.jobs.sampling.fill import fill_store
from cdm_cli.jobs.sampling.shared_batches import Filling
from cdm_cli.jobs.sweep.choice import name_point
from cdm_cli.jobs.sweep.judges import Bench, PointJudge, PointNumbers
from cdm_cli.jobs.sweep.making import Amount, Maker, claim
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.shared import Loaded, open_panel_and_stage
from cdm_cli.jobs.sweep.table import write_start
from cdm_cli.options.sweeping import SweepOptions
from cdm_cli.units import format_count

PATIENCE = 600.0  # seconds without a new sample of others that end a wait


def fill_points(
    options: SweepOptions, sweep: Sweep, missing: Sequence[Point], command: str, session: Session
) -> None:
    """Make and judge the missing points, and wait for those that other processes make.

    Raises StoppedError when asked to stop, or where the other processes make no sample for PATIENCE
    seconds; what `open_panel_and_stage` raises.
    """
    panel, loaded = open_panel_and_stage(options, _set_most_at_once(sweep.points, session), session)
    session.lead(lambda: write_start(sweep, command))
    judge = PointJudge(sweep, panel, options.sampling.seed)
    with lock.hold_directory(sweep.out, alone=False):
        makers = Makers(options.command, session, loaded, judge, len(missing))
        if session.world.size > 1:
            makers.make_in_turn(missing)
            return
        while missing:
            missing = makers.make_together(missing)
            if missing:
                missing = _wait_for(missing, session)


def _set_most_at_once(points: Sequence[Point], session: Session) -> list[Point]:
    """Return the points with the batch that a GPU may fill from the rows of all of them.

    On a CPU, and with several processes, they stay as they are: a batch is that of `cdm upsample`,
    and the samples are the same to the bit.
    """
    if session.device.type != "cuda" or session.world.size > 1:
        return list(points)
    most = min(LARGEST, sum(len(point.work.samples) for point in points))
    return [replace(point, work=replace(point.work, most_at_once=most)) for point in points]


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
            self.session.report.say(f"{self.command}: {name_point(point.labels)}")
            fill_store(point.work, self.loaded.switch_to(point.work), point.samples, self.session)
            self._keep(point, self.judge(point))

    def make_together(self, points: Sequence[Point]) -> list[Point]:
        """Make the points that no other process makes, in shared batches; return the others."""
        whole = Amount.of((point.work, len(point.work.samples)) for point in points)
        missing = Amount.of((point.work, _count_missing(point)) for point in points)
        elsewhere: list[Point] = []
        with ExitStack() as stack, Bench(self.judge.panel, self.command) as bench:
            maker = Maker(self.command, self.session, self.loaded, bench)
            maker.fill(self._take(points, elsewhere, stack, bench), whole, missing)
        return elsewhere

    def _take(
        self, points: Sequence[Point], elsewhere: list[Point], stack: ExitStack, bench: Bench
    ) -> Iterator[Filling]:
        """Lock the store of each point as its turn comes, until its numbers are written.

        elsewhere: gets the points whose stores other processes have locked.
        """
        judge = replace(self.judge, panel=bench.panel)
        for point in points:
            try:
                store = stack.enter_context(claim(point, self.loaded))
            except StoppedError:
                elsewhere.append(point)
                continue
            if point.judged.exists():
                store.close()
                continue

            def hand_over(point: Point = point, store: Store = store) -> None:
                bench.give(partial(judge, point), lambda found: self._keep(point, found, store))

            yield Filling(point.work, store, hand_over)

    def _keep(self, point: Point, found: PointNumbers, store: Store | None = None) -> None:
        """Write the numbers of a point, unlock its store, and say them."""
        told = self.judge.keep(point, found)
        if store is not None:
            store.close()
        self.done += 1
        name = f"{name_point(point.labels)} ({self.done} of {self.num})"
        self.session.report.say(f"{self.command}: {name}: {told}")


def _count_missing(point: Point) -> int:
    """Return how many images of a point are not made yet."""
    if not point.samples.exists():
        return len(point.work.samples)
    with open_store(point.samples) as store:
        part = store.parts[""]
        return sum(len(part.list_rows(block)) for block in part.list_missing())


def _wait_for(points: Sequence[Point], session: Session) -> list[Point]:
    """Wait until another process lets go of a point, or all are judged; return the points left.

    Raises StoppedError when asked to stop, or where no sample is made for PATIENCE seconds.
    """
    session.report.say(
        f"waiting for {format_count(len(points), 'point')} that other processes make"
    )
    left, seen, since = list(points), -1, time.monotonic()
    with Stop() as stop:
        while True:
            left = [point for point in left if not point.judged.exists()]
            held = [_find_holder(point) for point in left]
            if not left or not all(held):
                return left
            now = sum(map(_count_missing, left))
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


def _find_holder(point: Point) -> str:
    """Return who has locked the store of a point, "" where nobody has."""
    try:
        open_store(point.samples, writable=True).close()
    except StoppedError as error:
        return error.what
    return ""
