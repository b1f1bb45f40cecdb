"""A stage made ready to sample: loaded as its run computes, with a batch that fits the device.

Before weights are loaded, the output is checked: it can be made, or it is this job's own and is
continued.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.checkpoint import build_empty_net, find_weights_file, load_diffusion_stage
from cdm_cli.cascade.fast import make_fast, record_kernels
from cdm_cli.cascade.generate import generate
from cdm_cli.cascade.stage import Stage
from cdm_cli.cascade.weights import read_weights
from cdm_cli.data import pruned
from cdm_cli.data.store import open_store
from cdm_cli.jobs.runtime.host_memory import warn_of_memory
from cdm_cli.jobs.runtime.same_store import check_resume_or_create
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import end_at_once
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.numerics import (
    DECIDE,
    Numerics,
    check_same_numerics,
    choose_numerics,
    estimate_image_bytes,
)
from cdm_cli.jobs.sampling.parents import find_stage_digest
from cdm_cli.jobs.sampling.provenance import find_numerics
from cdm_cli.jobs.sampling.work import Work, adopt_block_size, make_spec
from cdm_cli.names import RUNS
from cdm_cli.nets.memory import halve, say_halved
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.startup import measure_part

BESIDE = 100 * 2**20  # bytes on a CPU beside weights and images: kernels, buffers, threads
TRIED = 3  # evaluations: launched, recorded, replayed


@dataclass(frozen=True)
class ReadyStage:
    """A stage on the device, and the numerics that it was made ready for."""

    stage: Stage
    numerics: Numerics


def make_stage_ready(work: Work, out: Path, session: Session) -> ReadyStage:
    """Check the output, fix the numerics, and load the stage onto the device of each process.

    Each of the numerics is what its flag says, else that of the run that `out` was begun by, else
    what the device runs best, of a batch 64 images and 2^16 pixels at most on a CPU, 1024 and 2^20
    on a GPU (`choose_batch`). Only the last is tried, on a GPU, whose memory others may use: a few
    evaluations of the first image, which write nothing, in a batch that is halved until it fits in
    every process. Raises what `check_output` and `load_fast_stage` raise,
    and MemoryFloorError where one image does not fit.
    """
    session.check_shared(out)
    recorded, chosen = session.decide(
        lambda: check_output(work, out, session),
        lambda found: {name: getattr(found[1], name) for name in DECIDE},
        next="the same kind of device on every host, or --batch-size N",
    )
    if recorded and recorded.get("device") != chosen.device:
        session.report.say(
            f"{out} was begun on {recorded.get('device')}, this is {chosen.device}: samples "
            "made from here on differ in their last bits"
        )
    ready = ReadyStage(load_fast_stage(work.header, work.sampling, chosen, session), chosen)
    if recorded or session.compute.batch_size or session.device.type != "cuda":
        return ready
    return halve_until_fits(ready, work, session)


def check_output(
    work: Work, out: Path, session: Session
) -> tuple[Mapping[str, Any] | None, Numerics]:
    """Check, before weights are loaded, that `out` can be made or continued; `--dry-run` ends here.

    Returns the numerics of the run that is being continued, None for a new one, and those of this
    run. Raises MissingError for weights that are not there, WouldOverwriteError where `out` holds
    something else than `make_spec` the work, or was begun by numerics that a flag contradicts,
    DiskError where it has no room.
    """
    digest = find_stage_digest(work.header, work.sampling.weights)
    recorded = read_numerics(out)
    evaluations = work.num * work.chain.evaluations  # of all parts
    most_at_once = work.most_at_once or choose_block_size(work.num)
    chosen = choose_numerics(work.header.config, session, evaluations, recorded, most_at_once)
    if recorded:
        check_same_numerics(recorded, chosen, out)
    check_resume_or_create(out, make_spec(adopt_block_size(work, out), digest, chosen))
    return recorded, chosen


def halve_until_fits(ready: ReadyStage, work: Work, session: Session) -> ReadyStage:
    """Halve the batch until every process can evaluate the network on as many images."""
    size = ready.numerics.batch_size
    while not session.world.agree(_does_fit(ready.stage, work, size)):
        size = halve(size, ready.stage.device)
        parts = f"; for the same bits, other parts need --batch-size {size}"
        among = parts if len(work.samples) < work.num else ""
        session.report.say(say_halved(size) + among)
    return replace(ready, numerics=replace(ready.numerics, batch_size=size))


def _does_fit(stage: Stage, work: Work, size: int) -> bool:
    """Evaluate the network three times on a batch of `size`, and return whether that fits.

    The batch is the first image, padded. On CUDA the first evaluation launches the kernels, the
    second records a graph of them, the third replays it: a graph needs memory of its own. Where
    it finds none the network runs without a graph, as it will later. The plain network is tried:
    the compiler would take minutes for each size.
    """
    first = work.make_inputs(range(1))
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


def read_numerics(out: Path) -> Mapping[str, Any] | None:
    """Return the numerics recorded in a store, or in the record of a pruned one; None without."""
    if not out.exists():
        record = pruned.read_record(out)
        return (record and find_numerics(record.provenance)) or None
    with open_store(out) as store:
        return find_numerics(store.provenance) or None


def load_fast_stage(
    header: Header, sampling: Sampling, numerics: Numerics, session: Session
) -> Stage:
    """Load the stage onto the device, its network in the form that runs fastest there.

    Raises what `load_diffusion_stage` raises: for weights that are missing or damaged, or do not
    fit `stage.json`. On a CPU it is said first if memory may not suffice.
    """
    tell_memory(header, sampling, numerics, session)
    with measure_part("weights"):
        stage = load_diffusion_stage(
            header.directory, Path(RUNS), sampling.weights, session.device,
            precision=numerics.precision,
        )  # fmt: skip
    return make_fast(
        stage, compiled=numerics.compiled, compiling=partial(_compile_or_leave, session.report)
    )


def tell_memory(header: Header, sampling: Sampling, numerics: Numerics, session: Session) -> None:
    """Say that evaluating a network on a CPU may take more memory than is free.

    On a GPU too little memory is an error, and the batch is halved.
    """
    if session.device.type == "cuda":
        return
    weights = os.path.getsize(find_weights_file(header.directory, sampling.weights))
    warn_of_memory(
        "an evaluation of the network", "--batch-size ", weights + BESIDE,
        estimate_image_bytes(header.config.model), numerics.batch_size, session.world.size,
        session.report,
    )  # fmt: skip


@torch.no_grad()
def take_weights(stage: Stage, directory: Path, weights: str) -> str:
    """Give a stage other weights, checked, rounded as those it has; nothing is compiled anew.

    Returns their digest. Raises MissingError where they are gone, and what `read_weights` raises.
    """
    expected = build_empty_net(stage.config).state_dict()
    found = read_weights(find_weights_file(directory, weights), expected)
    for name, parameter in stage.net.named_parameters():
        parameter.copy_(found.tensors[name])
    return found.digest


def tell_compiling(report: Report) -> None:
    """Report that the network is being compiled, which takes a while."""
    report.say("compiling the network at its first use, which takes a minute or two")


@contextmanager
def _compile_or_leave(report: Report) -> Generator[None]:
    """Say what takes so long; a signal ends the program: no block is being made yet."""
    tell_compiling(report)
    with end_at_once():
        yield
