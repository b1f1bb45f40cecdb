"""Judging the points of a sweep: one after the other, in a thread while the next are sampled."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NamedTuple, Self

import torch

from cdm_cli.data.store import Store, open_store
from cdm_cli.jobs.judging.images import ImageSet, from_store
from cdm_cli.jobs.judging.panel import Panel, measure
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.table import keep
from cdm_cli.metrics.table import MetricTable


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
            self.metrics = self.metrics or metrics_of(self.panel, images)
            table = measure(self.panel, images, self.metrics, seed=self.seed)
            return PointNumbers(table, store.provenance["parents"])

    def keep(self, point: Point, found: PointNumbers) -> str:
        """Write the numbers of a point beside its store; return them in a few words."""
        self.panel.session.lead(lambda: keep(self.sweep, point, found.table, found.parents))
        return _summarise(found.table)


def metrics_of(panel: Panel, images: ImageSet) -> tuple[str, ...]:
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


class Bench:
    """Judges points in a thread of its own, in the order in which they are given.

    Any thread may give a point; the thread that calls `settle` writes its numbers. The store of a
    point stays locked until then, so that no other process judges it too.
    """

    def __init__(self, judge: PointJudge, told: Callable[[Point, str], None]) -> None:
        session = replace(judge.panel.session, report=Silent())
        self._judge = replace(judge, panel=replace(judge.panel, session=session))
        self._told = told
        device = judge.panel.session.device
        self._thread = ThreadPoolExecutor(1, "cdm-judge", lambda: queue_apart(device))
        self._judged: list[tuple[Point, Store, Future[PointNumbers]]] = []

    def give(self, point: Point, store: Store) -> None:
        """Take a point whose samples are complete, to be judged in its turn."""
        self._judged.append((point, store, self._thread.submit(self._judge, point)))

    def settle(self, *, wait: bool = False) -> None:
        """Write the numbers of the points judged so far; with wait, of all that were given."""
        while self._judged and (wait or self._judged[0][2].done()):
            point, store, judging = self._judged[0]
            told = self._judge.keep(point, judging.result())
            store.close()
            del self._judged[0]
            self._told(point, told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
