"""What a search of schedules is of, decided from headers and flags alone."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.cascade.generate import Chain, chain_of
from cdm_cli.cascade.stage import trains_continuously
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.diffusion.schedules import from_config
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.judging.header import judge_fields, open_reference
from cdm_cli.jobs.runtime.identity import chain_fields
from cdm_cli.jobs.runtime.same_stage import config_digest
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.headers import Header, fitting_stage, weights_digest
from cdm_cli.jobs.sampling.make import Inputs, Work
from cdm_cli.jobs.sampling.rows import Rows, Source, choose_rows, part_of
from cdm_cli.jobs.sampling.schedule_file import FreshBy
from cdm_cli.jobs.tune.search import Candidate, Space
from cdm_cli.metrics.order import balanced_choice
from cdm_cli.names import LEAST_JUDGED, RUNS, Variance
from cdm_cli.options.judging import TuneOptions
from cdm_cli.options.sampling import Sampling, UpsampleOptions


@dataclass(frozen=True)
class Shown:
    """Images that a judge is shown. ids, labels: int64 [num]; inputs of places within these."""

    inputs: Inputs
    ids: np.ndarray
    labels: np.ndarray
    seed: int


@dataclass(frozen=True)
class Search:
    """One search for each number of steps, all of the same images.

    works: by number of steps, the baseline's. ids, labels: int64 [num] of the images.
    identity: what must be equal to continue. fresh: images that choose nothing, and what sets them
    apart from those of the trials: other low-resolution images, or the noise alone.
    """

    header: Header
    works: dict[int, Work]
    ids: np.ndarray
    labels: np.ndarray
    lowres: str
    sampling: Sampling
    identity: dict[str, Any]
    fresh: Shown
    fresh_by: FreshBy

    @property
    def work(self) -> Work:
        """Any of the works: the inputs of all are the same."""
        return next(iter(self.works.values()))

    def space(self, steps: int) -> Space:
        """Return the box of schedules of so many steps."""
        alpha_bar_T = float(from_config(self.header.config.schedule).alpha_bar[-1])
        return Space(steps, alpha_bar_T, self._variances())

    def _variances(self) -> tuple[Variance, ...]:
        """Return the stage's own variance, and the other fixed one unless one is asked for."""
        chain = self.work.chain
        if chain.sampler != "ancestral" or self.sampling.variance:
            return (chain.variance,)
        return ("large", "small") if chain.variance == "large" else ("small", "large")

    def baseline(self, steps: int) -> Chain:
        """Return the stage's own schedule, respaced to so many steps."""
        return chain_of(self.header.config, replace(self.sampling, steps=steps))

    def chain(self, candidate: Candidate) -> Chain:
        """Return the chain that runs on a candidate, as `--schedule` will."""
        ancestral = self.work.chain.sampler == "ancestral"
        update = {"steps": None, "variance": candidate.variance if ancestral else None}
        asked = replace(self.sampling, **update)
        return chain_of(self.header.config, asked, alpha_bar=candidate.alpha_bar)


def planned(options: TuneOptions, stack: ExitStack) -> Search:
    """Decide all that headers and flags decide; the stack keeps the stores open.

    Raises UsageError, MissingError and MismatchError for everything that does not fit.
    """
    store = stack.enter_context(open_store(options.lowres))
    _, part = part_of(store, None)
    header = fitting_stage(options.model, Path(RUNS), store, part)
    _check_continuous(header)
    reference = open_reference(options.judge.ref, header, stack)
    works: dict[int, Work] = {}
    for steps in sorted(set(options.steps)):
        asked = replace(options.sampling, steps=_counted(steps, header))
        works[steps] = upsample.plan_work(
            UpsampleOptions(
                lowres=options.lowres,
                model=str(header.directory),
                s=options.s,
                num=options.num,
                sampling=asked,
                compute=options.judge.compute,
            ),
            store,
        )
    first = next(iter(works.values()))
    identity = {
        **first.fields,
        **_sampled(header, first.chain, options.sampling),
        "stage": config_digest(header.config),
        "weights": weights_digest(header.directory, options.sampling.weights),
        "num": options.num,
        "trials": options.trials,
        **judge_fields(options.judge),
        "ref": reference.digest,
    }
    rows = choose_rows(store, part, options.num)
    ids, labels = np.asarray(part.ids[rows]), np.asarray(part.labels[rows])
    return Search(
        header, works, ids, labels, store.path.name, options.sampling, identity,
        *_fresh(header, store, part, rows, int(first.fields["s"]), options.sampling.seed),
    )  # fmt: skip


def _fresh(
    header: Header, store: Store, part: Part, used: Rows, s: int, seed: int
) -> tuple[Shown, FreshBy]:
    """Return as many images of the store as were used, others where it has enough of them."""
    rest = np.setdiff1d(np.arange(part.num), used)
    others = len(rest) >= LEAST_JUDGED
    if others:
        ids, labels = np.asarray(part.ids)[rest], np.asarray(part.labels)[rest]
        rows = rest[balanced_choice(ids, labels, min(len(used), len(rest)))]
    else:
        rows, seed = used, (seed + 1) % 2**63
    source = Source(store.path, part, header.conditioning.resolution, rows)
    inputs = upsample.Condition(header, source, s, "non-truncated", seed).samples
    ids, labels = np.asarray(part.ids[rows]), np.asarray(part.labels[rows])
    return Shown(inputs, ids, labels, seed), "images" if others else "noise"


def _sampled(header: Header, chain: Chain, sampling: Sampling) -> dict[str, Any]:
    """Return what the images of all trials share: not the times, which are searched.

    variance: as asked for; None tries both fixed ones.
    """
    fields = chain_fields(header.config, chain, sampling.seed)
    shared = {name: fields[name] for name in fields if name not in ("steps", "times")}
    return {**shared, "variance": sampling.variance}


def _counted(steps: int, header: Header) -> int:
    T = header.config.schedule.T
    if not 1 <= steps <= T:
        raise UsageError(f"--steps {steps}: the stage has 1..{T}", next="--steps 4,16,64")
    return steps


def _check_continuous(header: Header) -> None:
    """Raise MismatchError for a stage that knows the noise levels of its own schedule only."""
    if trains_continuously(header.config):
        return
    raise MismatchError(
        f"{header.directory} was trained on the steps of one schedule, not on a continuum of noise "
        f"levels (time_input = {header.config.time_input}, loss = {header.config.loss}), so no "
        "other schedule can be searched for it",
        kept="no output was made",
        next="cdm upsample --steps N respaces its own; or train with --set "
        "time_input=sqrt_alpha_bar --set loss=simple --set variance=small",
    )
