"""Points sampled in shared batches by a process that is alone, and judged in a thread meanwhile.

All points share one loading, one compilation and one recorded graph: a batch holds rows of several
points, so that it is full whatever a point lacks.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cdm_cli.data.store import Store
from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.fill import Engine, Meter
from cdm_cli.jobs.sampling.numerics import check_same_numerics
from cdm_cli.jobs.sampling.provenance import find_numerics
from cdm_cli.jobs.sampling.shared_batches import Filling, cut_batches, fill_stores
from cdm_cli.jobs.sampling.work import Work, adopt_block_size, make_spec
from cdm_cli.jobs.sweep.judges import Bench
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.jobs.sweep.shared import Loaded


class Amount(NamedTuple):
    """How many images, and what they cost in network evaluations."""

    images: int
    evaluations: int

    @classmethod
    def of(cls, counted: Iterable[tuple[Work, int]]) -> "Amount":
        """Add up so many images of each work."""
        pairs = [(num, num * work.chain.evaluations) for work, num in counted]
        return cls(sum(num for num, _ in pairs), sum(cost for _, cost in pairs))


def claim(point: Point, loaded: Loaded) -> Store:
    """Create the store of a point, or open the one that is there, locked.

    Raises StoppedError where another process writes it, and WouldOverwriteError where another
    command made it, or other numerics a part of it.
    """
    numerics, digest = loaded.ready.numerics, loaded.find_digest(point.work)
    spec = make_spec(adopt_block_size(point.work, point.samples), digest, numerics)
    store = resume_or_create(point.samples, spec)
    try:
        if store.parts[""].list_missing():
            check_same_numerics(find_numerics(store.provenance), numerics, point.samples)
    except WouldOverwriteError:
        store.close()
        raise
    return store


def _make_batch_key(work: Work) -> str:
    """Return a text that is equal for works that may share a batch: weights, chain and seed."""
    sampling = work.sampling
    fields = list_chain_fields(work.header.config, work.chain, sampling.seed)
    return json.dumps({"weights": sampling.weights, **fields})


@dataclass(frozen=True)
class Maker:
    """Fills the stores of points with one loaded stage; their numbers come from the bench."""

    command: str
    session: Session
    loaded: Loaded
    bench: Bench

    def fill(self, fillings: Iterable[Filling], whole: Amount, missing: Amount) -> None:
        """Fill stores in shared batches, and keep what is judged meanwhile, to the last number.

        whole: what all of them have in the end; missing: what of it earlier runs have not made.
        Raises what `fill_stores` and `Bench.settle` raise, and StoppedError when asked to stop.
        """
        there = Amount(*(all_ - left for all_, left in zip(whole, missing, strict=True)))
        track = self.session.report.track(
            self.command, whole.evaluations, "evaluations", there.evaluations
        )
        with Stop() as stop, track as advance:
            meter = Meter(
                advance, stop, whole.images, lambda: "finished blocks and points are complete",
                there.images,
            )  # fmt: skip
            todo = cut_batches(fillings, self.loaded.ready.numerics.batch_size, _make_batch_key)
            fill_stores(todo, self._make_engine, meter)
            self.bench.settle(wait=True)

    def _make_engine(self, work: Work) -> Engine:
        self.bench.settle()
        return Engine.of(work, self.loaded.switch_to(work))
