"""From a plan that headers decide to a finished store: what `sample` and `upsample` share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.fast import record_kernels
from cdm_cli.cascade.generate import generate
from cdm_cli.cascade.stage import Stage
from cdm_cli.data import pruned
from cdm_cli.data.store import open_store
from cdm_cli.errors import MemoryFloorError
from cdm_cli.jobs.runtime.device import describe
from cdm_cli.jobs.runtime.identity import check_out
from cdm_cli.jobs.runtime.session import Session, open_shared_store
from cdm_cli.jobs.sampling.blocks import block_size
from cdm_cli.jobs.sampling.fill import Engine, fill
from cdm_cli.jobs.sampling.numerics import (
    DECIDE,
    Numerics,
    check_same_numerics,
    choose_numerics,
    load_ready_stage,
)
from cdm_cli.jobs.sampling.parents import stage_digest
from cdm_cli.jobs.sampling.work import Work, spec_of, use_its_blocks

TRIED = 3  # evaluations: launched, recorded, replayed


@dataclass(frozen=True)
class Made:
    """The store that was written. made: samples of this run; the others were there before."""

    out: Path
    samples: int
    made: int
    resolution: int
    kept_s: tuple[int, ...]
    network_evaluations: int
    device: str


@dataclass(frozen=True)
class Ready:
    """A stage on the device, and the numerics that it was made ready for."""

    stage: Stage
    numerics: Numerics


def make_ready(work: Work, out: Path, session: Session) -> Ready:
    """Load the stage as this run, or the one that it continues, computes with it.

    A batch that nobody asked for is tried on a GPU, which others may use too. Raises
    MemoryFloorError where one image does not fit.
    """
    session.check_shared(out)
    before, chosen = session.decide(
        lambda: check_output(work, out, session),
        lambda found: {name: getattr(found[1], name) for name in DECIDE},
        next="the same kind of device on every host, or --batch-size N",
    )
    if before and before.get("device") != chosen.device:
        session.report.say(
            f"{out} was begun on {before.get('device')}, this is {chosen.device}: samples "
            "made from here on differ in their last bits"
        )
    ready = Ready(load_ready_stage(work.header, work.sampling, chosen, session), chosen)
    if before or session.compute.batch_size or session.device.type != "cuda":
        return ready
    return halve_until_fits(ready, work, session)


def check_output(
    work: Work, out: Path, session: Session
) -> tuple[Mapping[str, Any] | None, Numerics]:
    """Check, before weights are loaded, that `out` can be made or continued; `--dry-run` ends here.

    Returns the numerics of the run that is being continued, and those of this one. Raises
    MissingError for weights that are not there, WouldOverwriteError, DiskError.
    """
    digest = stage_digest(work.header, work.sampling.weights)
    before = recorded_numerics(out)
    evaluations = work.num * work.chain.evaluations  # of all parts
    most = work.together or block_size(work.num)
    chosen = choose_numerics(work.header.config, session, evaluations, before, most)
    if before:
        check_same_numerics(before, chosen, out)
    check_out(out, spec_of(use_its_blocks(work, out), digest, chosen))
    return before, chosen


def halve_until_fits(ready: Ready, work: Work, session: Session) -> Ready:
    """Halve the batch until every process can evaluate the network on as many images."""
    size = ready.numerics.batch_size
    while not session.world.agree(_fits(ready.stage, work, size)):
        if size == 1:
            raise MemoryFloorError(
                f"one image at a time does not fit into the memory of {ready.stage.device}",
                kept="what is there is untouched",
                next="free the device of other programs, or take a larger one",
            )
        size = math.ceil(size / 2)
        parts = f"; for the same bits, other parts need --batch-size {size}"
        among = parts if len(work.rows) < work.num else ""
        session.report.say(f"out of device memory: now {size} images at a time{among}")
    return replace(ready, numerics=replace(ready.numerics, batch_size=size))


def _fits(stage: Stage, work: Work, size: int) -> bool:
    """Evaluate the network three times on a batch of `size`, and return whether that fits.

    The batch is the first image, padded. On CUDA the first evaluation launches the kernels, the
    second records a graph of them, the third replays it: a graph needs memory of its own. Where
    it finds none the network runs without a graph, as it will later. The plain network is tried:
    the compiler would take minutes for each size.
    """
    first = work.inputs(range(1))
    tried = stage.with_denoise(stage.net.denoise)
    if stage.device.type == "cuda":
        tried = record_kernels(tried)
    try:
        generate(
            tried, work.chain, first, seed=0, batch_size=size,
            watch=lambda steps: islice(steps, 1 + TRIED),
        )  # fmt: skip
    except torch.OutOfMemoryError:
        return False
    else:
        return True
    finally:  # after the handler, whose traceback holds what was computed
        tried.release()
        torch.cuda.empty_cache()


def recorded_numerics(out: Path) -> Mapping[str, Any] | None:
    """Return the numerics recorded in a store, or in the record of a pruned one; None without."""
    if not out.exists():
        before = pruned.read_record(out)
        found = before.provenance.get("numerics") if before else None
    else:
        with open_store(out) as store:
            found = store.provenance.get("numerics")
    return found if isinstance(found, dict) else None


def engine_of(work: Work, ready: Ready) -> Engine:
    """Return the engine that samples a work with a stage that is ready."""
    size = ready.numerics.batch_size
    return Engine(ready.stage, work.chain, work.sampling.seed, size, work.keep)


def produce(
    work: Work, ready: Ready, out: Path, session: Session, *, upto: int | None = None
) -> Made:
    """Sample the blocks that the store lacks, sharing them with the other processes.

    upto: of the blocks that hold the first `upto` samples; None: of all. Raises
    WouldOverwriteError where out was made by another command, StoppedError, DiskError.
    """
    engine = engine_of(work, ready)
    spec = spec_of(use_its_blocks(work, out), ready.stage.digest, ready.numerics)
    with open_shared_store(out, spec, session) as store:
        part = store.parts[""]
        there = part.num_blocks - len(part.pending())
        if there and upto is None:
            session.report.say(f"{out}: {there} of {part.num_blocks} blocks are there, continuing")
        made = fill(part, engine, work.inputs, session, what=work.command, upto=upto)
        session.world.barrier()
    return Made(
        out=out,
        samples=len(work.rows),
        made=made,
        resolution=work.header.config.model.resolution,
        kept_s=work.keep,
        network_evaluations=made * work.chain.evaluations,
        device=describe(ready.stage.device),
    )
