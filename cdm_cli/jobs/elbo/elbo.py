"""`cdm eval elbo`: bits per dimension of real images under a stage, or a cascade (Eq. 1, Eq. 3).

Every image is bounded alone, so that the standard error over images holds all that is random:
the images, the t that stand for the sum over t, and the noise.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cdm_cli.cascade.elbo import Bound, bound
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.cascade.stage import Stage
from cdm_cli.data.pixels import from_uint8
from cdm_cli.jobs.elbo.plan import ElboWork, StageShare, plan_work
from cdm_cli.jobs.elbo.result import ElboResult, make_rows
from cdm_cli.jobs.runtime.device import choose_precision, describe
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.cost import estimate_rate
from cdm_cli.jobs.sampling.headers import read_weights_digest
from cdm_cli.jobs.sampling.numerics import Numerics, choose_numerics
from cdm_cli.jobs.sampling.ready import load_fast_stage
from cdm_cli.jobs.sampling.schedule_file import tell_schedule
from cdm_cli.jobs.sampling.store_images import tell_kind, tell_rows
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.nets.memory import Halving
from cdm_cli.options.judging import ElboOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count


@dataclass(frozen=True)
class Bounder:
    """A stage on its device, and the images that it bounds, batch_size at a time."""

    share: StageShare
    stage: Stage
    work: ElboWork
    batch_size: int
    terms: int
    seed: int

    def bound_all(self, session: Session, advance: Callable[[int], None]) -> Bound:
        """Return the parts of the bound of every image, each float64 [num], in order of rows.

        Every process bounds a share of the images, and gets those of all.
        """
        num, size, world = self.work.num, self.batch_size, session.world
        device = self.stage.device
        bound_rows = Halving(partial(self._bound_rows, advance), device, session.report.say)
        parts = torch.zeros(len(Bound._fields), num, dtype=torch.float64, device=device)
        for start in range(world.rank * size, num, world.size * size):
            rows = torch.arange(start, start + size).clamp(max=num - 1)  # batches of one shape
            stop = min(start + size, num)
            parts[:, start:stop] = bound_rows(rows)[: stop - start].T
        world.sum_([parts], parts.new_zeros(1))
        return Bound(*parts.cpu())

    def _bound_rows(self, advance: Callable[[int], None], rows: Tensor) -> Tensor:
        """Return the parts of images at some rows, the last one repeated; float64 [B, parts]."""
        places = range(int(rows[0]), int(rows[-1]) + 1)
        within, images = rows - rows[0], self.work.images[self.share.resolution]
        found = bound(
            self.stage, self.share.chain, from_uint8(images.take_images(places))[within],
            self._make_inputs(places).select(within), seed=self.seed, terms=self.terms,
            s=self.share.above, advance=lambda _: advance(len(places)),
        )  # fmt: skip
        return torch.stack(found, 1)

    def _make_inputs(self, places: range) -> SampleInputs:
        header, s = self.share.header, self.share.s
        if s is not None:
            lowres = self.work.images[header.conditioning.resolution]
            return Conditioner(header, lowres, s, "non-truncated", self.seed).make_inputs(places)
        images = self.work.images[self.share.resolution]
        ids, y = images.take_ids(places), images.take_labels(places)
        return SampleInputs(torch.from_numpy(ids), torch.from_numpy(y))


class StageBound(NamedTuple):
    """The bound of one stage, the digest of its weights, and the numerics that computed it."""

    bound: Bound
    digest: str
    numerics: Numerics


def run(options: ElboOptions, report: Report) -> ElboResult:
    """Bound the images of options.ref under options.stages.

    Raises UsageError for an s that a stage does not know, MismatchError where stages and data
    do not fit each other, MissingError, StoppedError and MemoryFloorError.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: ElboOptions, session: Session) -> ElboResult:
    """Bound as one process of a job."""
    with ExitStack() as stack:
        work = session.decide(lambda: plan_work(options, stack), partial(_list_compared, options))
        _tell_images(options, work, session.report)
        _tell_schedule(options, work, session.report)
        done = [_bound_stage(share, work, options, session) for share in work.shares]
        return ElboResult(
            rows=tuple(make_rows(work.shares, [each.bound for each in done])),
            data=str(options.ref),
            data_digest=work.store.digest,
            split=work.split,
            num=work.num,
            steps=tuple(share.chain.schedule.T for share in work.shares),
            terms=tuple(share.count_evaluations(options.terms) for share in work.shares),
            variance=tuple(share.chain.variance for share in work.shares),
            clip=options.sampling.clip,
            stage_digests=tuple(each.digest for each in done),
            batch_size=tuple(each.numerics.batch_size for each in done),
            precision=done[0].numerics.precision,
            seed=options.sampling.seed,
            device=describe(session.device),
        )


def _list_compared(options: ElboOptions, work: ElboWork) -> dict[str, Any]:
    """Return what must be equal in every process."""
    weights, seed = options.sampling.weights, options.sampling.seed
    stages = [
        {
            "stage": compute_config_digest(share.header.config),
            "weights": read_weights_digest(share.header.directory, weights),
            "s": share.s,
            **list_chain_fields(share.header.config, share.chain, seed),
        }
        for share in work.shares
    ]
    return {"data": work.store.digest, "split": work.split, "num": work.num, "stages": stages}


def _tell_images(options: ElboOptions, work: ElboWork, report: Report) -> None:
    tell_kind(work.store, report)
    tell_rows(work.store, options.split, work.num, report)


def _tell_schedule(options: ElboOptions, work: ElboWork, report: Report) -> None:
    bounded = replace(options.sampling, sampler="ancestral")
    tell_schedule(work.shares[-1].header, bounded, [share.s for share in work.shares], report)


def _bound_stage(
    share: StageShare, work: ElboWork, options: ElboOptions, session: Session
) -> StageBound:
    """Load one stage, bound all images under it, and free it."""
    total = share.count_evaluations(options.terms) * work.num
    chosen = choose_numerics(share.header.config, session, total)
    stage = load_fast_stage(share.header, options.sampling, chosen, session)
    bounder = Bounder(share, stage, work, chosen.batch_size, options.terms, options.sampling.seed)
    name, world = share.header.directory.name, session.world
    with Stop() as stop, session.report.track(f"bound {name}", total, "evaluations") as advance:

        def count(num: int) -> None:
            advance(num * world.size, format_count(work.num, "image"))
            if stop.asked:
                raise stop.error("", next="the same command starts anew")

        return StageBound(bounder.bound_all(session, count), stage.digest, chosen)


def plan(options: ElboOptions, report: Report) -> dict[str, object]:
    """Return what `run` would evaluate; nothing is loaded."""
    with ExitStack() as stack:
        work = plan_work(options, stack)
        _tell_images(options, work, report)
    device = plan_session(options.compute, report).device
    precision = choose_precision(options.compute.precision, device)
    rates = [
        estimate_rate(share.header.config, share.chain, device, precision) for share in work.shares
    ]
    _tell_schedule(options, work, report)
    evaluations = [share.count_evaluations(options.terms) * work.num for share in work.shares]
    rows = [
        {
            "stage": share.header.directory.name,
            "s": share.s,
            "above": share.above,
            "images": work.num,
            "evaluations": num,
        }
        for share, num in zip(work.shares, evaluations, strict=True)
    ]
    seconds = sum(num / rate for num, (rate, _) in zip(evaluations, rates, strict=True))
    return {
        "data": str(options.ref),
        "split": work.split,
        "network_evaluations": sum(evaluations),
        "device": describe(device),
        "estimated_seconds": round(seconds / (options.compute.gpus or 1), 1),
        "estimated_by": rates[0][1],
        "stages": rows,
    }
