"""Judging the points of a sweep: one after the other, in a thread while the next are sampled."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import torch

from cdm_cli.data.store import open_store
from cdm_cli.jobs.judging.images import ImageSet, from_store
from cdm_cli.jobs.judging.panel import Panel, measure
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.table import keep
from cdm_cli.metrics.table import MetricTable

T = TypeVar("T")


class PointNumbers(NamedTuple):
    """The numbers of a point, and the parents that its store records."""

    table: MetricTable
    parents: Sequence[dict[str, str]]


@dataclass
class PointJudge:
    """Judges finished stores of a sweep. metrics: what the judge can give, found out once."""

    sweep: Sweep
    panel: Panel
    seed: int
    metrics: tuple[str, ...] = ()

    def __call__(self, point: Point) -> PointNumbers:
        """Return the numbers of a point whose store is complete."""
        with open_store(point.samples) as store:
            resolution = self.sweep.header.config.model.resolution
            images = from_store(store, None, resolution, None, self.seed)
            self.metrics = self.metrics or find_metrics(self.panel, images)
            table = measure(self.panel, images, self.metrics, seed=self.seed)
            return PointNumbers(table, store.provenance["parents"])

    def keep(self, point: Point, found: PointNumbers) -> str:
        """Write the numbers of a point beside its store; return them in a few words."""
        self.panel.session.lead(lambda: keep(self.sweep, point, found.table, found.parents))
        return _summarise(found.table)


def find_metrics(panel: Panel, images: ImageSet) -> tuple[str, ...]:
    """Return the metrics that a judge can give for images.

    They are FID, IS if it gives class probabilities, and accuracy if its classes are those of the
    images.
    """
    blank = torch.zeros(1, images.images.shape[-1], images.resolution, images.resolution)
    _, probabilities = panel.judge.extractor(blank.byte().to(panel.session.device))
    knows = bool(images.classes) and panel.judge.classes == images.classes
    return ("fid", *(["is"] if probabilities is not None else []), *(["accuracy"] if knows else []))


def _summarise(table: MetricTable) -> str:
    rows = [row for row in table.rows if row.metric != "fid_gap"]
    return ", ".join(
        f"{row.metric} {row.reference} {row.value:.4g}".replace("  ", " ") for row in rows
    )


def queue_apart(device: torch.device) -> None:
    """Give this thread a queue of its own on a GPU, which starts after what is queued by now.

    On the common queue each number that the thread reads would wait for all evaluations that are
    queued by then.
    """
    if device.type == "cuda":
        queue = torch.cuda.Stream(device, priority=-1)
        queue.wait_stream(torch.cuda.default_stream(device))
        torch.cuda.set_stream(queue)


class Aside(Silent):
    """A report for a thread: keeps what is said, for the thread that shows the progress to say."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


class Bench:
    """Judges points in a thread of its own, in the order in which they are given.

    Any thread may give a point; the thread that calls `settle` keeps its numbers, and says what
    was said to the report of `panel` meanwhile.
    """

    def __init__(self, panel: Panel, command: str) -> None:
        session, self._aside = panel.session, Aside()
        self.panel = replace(panel, session=replace(session, report=self._aside))
        self._say: Callable[[str], None] = lambda line: session.report.say(f"{command}: {line}")
        self._thread = ThreadPoolExecutor(1, "cdm-judge", lambda: queue_apart(session.device))
        self._judged: list[tuple[Future[Any], Callable[[Any], None]]] = []

    def give(self, judge: Callable[[], T], keep: Callable[[T], None]) -> None:
        """Take a point to be judged in its turn. keep: called by `settle` with what judge found."""
        self._judged.append((self._thread.submit(judge), keep))

    def settle(self, *, wait: bool = False) -> None:
        """Keep the numbers of the points judged so far; with wait, of all that were given.

        Raises what judging a point raised.
        """
        while self._judged and (wait or self._judged[0][0].done()):
            judging, keep = self._judged[0]
            try:
                found = judging.result()
            finally:
                while self._aside.lines:
                    self._say(self._aside.lines.popleft())
            keep(found)
            del self._judged[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
