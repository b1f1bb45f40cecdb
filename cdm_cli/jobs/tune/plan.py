"""Stage, images and identity of a search of schedules, decided from headers and flags alone."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdm_cli.cascade.chain import Chain, chain_of
from cdm_cli.cascade.checkpoint import find_stage
from cdm_cli.cascade.conditioning import check_s
from cdm_cli.cascade.stage import trains_continuously
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.diffusion.schedules import Schedule, from_config
from cdm_cli.errors import MismatchError, MissingError, UsageError
from cdm_cli.jobs.judging.header import RealImages, judge_fields, open_reference
from cdm_cli.jobs.runtime.identity import chain_fields
from cdm_cli.jobs.runtime.same_stage import config_digest
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sampling.classes import labels_of
from cdm_cli.jobs.sampling.headers import Header, fitting_stage, read_header, weights_digest
from cdm_cli.jobs.sampling.rows import Rows, StoreRows, choose_rows, part_of
from cdm_cli.jobs.sampling.schedule_file import FreshBy
from cdm_cli.jobs.sampling.work import Inputs
from cdm_cli.jobs.tune.search import Candidate, Space
from cdm_cli.jobs.tune.ways import Way
from cdm_cli.metrics.order import choose_balanced
from cdm_cli.names import LEAST_JUDGED, RUNS, Searching, Variance
from cdm_cli.options.judging import TuneOptions
from cdm_cli.options.sampling import Sampling

TRIALS: dict[Searching, int] = {"free": 40, "linear": 16}
REAL = 256  # images, at most, on which the terms of the bound are measured


class TrialImages(NamedTuple):
    """Images that a judge is shown. ids, labels: int64 [num]; inputs of places within these."""

    inputs: Inputs
    ids: np.ndarray
    labels: np.ndarray
    seed: int


class Asked(NamedTuple):
    """A stage and the images that its schedules are judged by.

    shown: those of the trials. fresh: images that choose nothing, and fresh_by what sets them
    apart: other images, or the noise alone. fields: what decides them.
    """

    header: Header
    classes: tuple[str, ...]
    shown: TrialImages
    fresh: TrialImages
    fresh_by: FreshBy
    lowres: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Search:
    """One search for each number of steps, all of the same images.

    identity: what must be equal to continue. real: the images that judge, where there are any to
    evaluate the network on. reference: ancestral steps, 0 for none.
    """

    asked: Asked
    method: Searching
    steps: tuple[int, ...]
    trials: int
    reference: int
    sampling: Sampling
    identity: dict[str, Any]
    real: Store | None

    @property
    def header(self) -> Header:
        """The stage."""
        return self.asked.header

    @property
    def schedule(self) -> Schedule:
        """The stage's own, all T steps."""
        return from_config(self.header.config.schedule)

    @property
    def s(self) -> int | None:
        """The s of a super-resolution stage."""
        return self.asked.fields.get("s")

    def space(self, steps: int) -> Space:
        """Return the box of linear schedules of so many steps."""
        return Space(steps, float(self.schedule.alpha_bar[-1]), self._variances())

    def _variances(self) -> tuple[Variance, ...]:
        """Return the stage's own variance, and the other fixed one unless one is asked for."""
        chain = self.baseline(self.steps[0])
        if chain.sampler != "ancestral" or self.sampling.variance:
            return (chain.variance,)
        return ("large", "small") if chain.variance == "large" else ("small", "large")

    def baseline(self, steps: int) -> Chain:
        """Return the stage's own schedule, respaced to so many steps."""
        return chain_of(self.header.config, replace(self.sampling, steps=steps))

    def chain(self, candidate: Candidate | Way) -> Chain:
        """Return the chain that runs on a candidate, as `--schedule` will."""
        if isinstance(candidate, Way):
            return chain_of(
                self.header.config,
                replace(self.sampling, sampler=candidate.sampler, variance=None, steps=None),
                times=candidate.times,
                stochasticity=candidate.stochasticity,
            )
        ancestral = self.baseline(self.steps[0]).sampler == "ancestral"
        update = {"steps": None, "variance": candidate.variance if ancestral else None}
        asked = replace(self.sampling, **update)
        return chain_of(self.header.config, asked, alpha_bar=candidate.alpha_bar)

    def many_steps(self) -> Chain:
        """Return the reference: ancestral sampling in many steps, the stage's own variance."""
        asked = Sampling(sampler="ancestral", steps=self.reference, clip=self.sampling.clip)
        return chain_of(self.header.config, asked)


def plan_work(options: TuneOptions, stack: ExitStack, before: Searching | None = None) -> Search:
    """Decide all that headers and flags decide; the stack keeps the stores open.

    before: what the search that is there is of. Raises UsageError, MissingError and MismatchError
    for everything that does not fit.
    """
    method = options.search or before or "free"
    asked, store = _choose_images(options, method, stack)
    header, T = asked.header, asked.header.config.schedule.T
    reference = open_reference(options.judge.ref, header, stack)
    steps = tuple(_check_steps(n, T) for n in sorted(set(options.steps)))
    trials = options.trials or TRIALS[method]
    many = min(options.reference, T) if method == "free" else 0
    chain = chain_of(header.config, replace(options.sampling, steps=steps[0]))
    identity = {
        **asked.fields,
        **_sampling_fields(header, chain, options.sampling),
        "stage": config_digest(header.config),
        "weights": weights_digest(header.directory, options.sampling.weights),
        "num": options.num,
        "trials": trials,
        **judge_fields(options.judge),
        "ref": reference.digest,
        **({"search": "free", "reference": many} if method == "free" else {}),
    }
    if store is not None:
        store.require_finished()
    return Search(
        asked, method, steps, trials, many, options.sampling, identity, _real(reference, header)
    )


def _choose_images(
    options: TuneOptions, method: Searching, stack: ExitStack
) -> tuple[Asked, Store | None]:
    """Return stage and images; of a base stage no store is read."""
    if options.model is not None:
        header = read_header(find_stage(options.model, Path(RUNS)))
        if header.config.kind == "base":
            if method == "linear":
                _check_continuous(header)
            return _of_base(options, header), None
    if not options.lowres.exists() and options.model is None:
        raise MissingError(
            f"{options.lowres} does not exist",
            next="cdm sample makes it; or --model with a base stage, which needs none",
        )
    store = stack.enter_context(open_store(options.lowres))
    name, part = part_of(store, None)
    header = fitting_stage(options.model, Path(RUNS), store, part)
    if method == "linear":
        _check_continuous(header)
    s = check_s(header.config, options.s)
    rows = choose_rows(store, part, options.num)
    seed = options.sampling.seed
    fields = {"lowres": store.digest, "split": name, "s": s, "augment": "non-truncated"}
    shown = _images(header, store, part, rows, s, seed)
    fresh, by = _choose_fresh(header, store, part, rows, s, seed)
    classes = tuple(store.classes)
    return Asked(header, classes, shown, fresh, by, store.path.name, fields), store


def _of_base(options: TuneOptions, header: Header) -> Asked:
    """Return samples 0..num - 1 of all classes for the trials, and num..2 num - 1 beside them."""
    if options.s is not None:
        raise UsageError(f"--s: {header.directory} is a base stage, which has no s",
                         next="leave out --s")  # fmt: skip
    conditional = header.config.model.num_classes > 0
    names = header.classes if conditional else (sample.UNLABELLED,)
    classes = header.shown if conditional else (0,)

    def images_from(first: int) -> TrialImages:
        ids = np.arange(first, first + options.num)

        def inputs(places: range) -> Any:
            return sample.samples_of_classes(
                range(first + places.start, first + places.stop), classes
            )

        return TrialImages(inputs, ids, labels_of(ids, classes), options.sampling.seed)

    fields = {"classes": list(classes)}
    return Asked(header, names, images_from(0), images_from(options.num), "images", "", fields)


def _images(header: Header, store: Store, part: Part, rows: Rows, s: int, seed: int) -> TrialImages:
    source = StoreRows(store.path, part, header.conditioning.resolution, rows)
    inputs = upsample.Conditioner(header, source, s, "non-truncated", seed).samples
    return TrialImages(inputs, np.asarray(part.ids[rows]), np.asarray(part.labels[rows]), seed)


def _choose_fresh(
    header: Header, store: Store, part: Part, used: Rows, s: int, seed: int
) -> tuple[TrialImages, FreshBy]:
    """Return as many images of the store as were used, others where it has enough of them."""
    rest = np.setdiff1d(np.arange(part.num), used)
    if len(rest) < LEAST_JUDGED:
        return _images(header, store, part, used, s, (seed + 1) % 2**63), "noise"
    ids, labels = np.asarray(part.ids)[rest], np.asarray(part.labels)[rest]
    rows = rest[choose_balanced(ids, labels, min(len(used), len(rest)))]
    return _images(header, store, part, rows, s, seed), "images"


def _real(reference: RealImages, header: Header) -> Store | None:
    """Return the store that judges, if it has what the stage starts from as well."""
    low, store = header.config.conditioning, reference.store
    if store is None:
        return None
    part = next(iter(store.parts.values()))
    return store if low is None or low.resolution in part.resolutions else None


def _sampling_fields(header: Header, chain: Chain, sampling: Sampling) -> dict[str, Any]:
    """Return what the images of all trials share: not the times, which are searched.

    variance: as asked for; None tries both fixed ones.
    """
    fields = chain_fields(header.config, chain, sampling.seed)
    shared = {name: fields[name] for name in fields if name not in ("steps", "times")}
    return {**shared, "variance": sampling.variance}


def _check_steps(steps: int, T: int) -> int:
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
        "linear schedule can be searched for it",
        kept="no output was made",
        next="cdm tune-schedule --search free; or train with --set "
        "time_input=sqrt_alpha_bar --set loss=simple --set variance=small",
    )
