"""A search of schedules: its chains and its identity, decided from headers and flags alone."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from cdm_cli.cascade.chain import Chain, chain_of
from cdm_cli.data.store import Store
from cdm_cli.diffusion.schedules import Schedule, from_config
from cdm_cli.errors import UsageError
from cdm_cli.jobs.judging.header import RealImages, identify_judge, open_reference
from cdm_cli.jobs.runtime.identity import chain_fields
from cdm_cli.jobs.runtime.same_stage import config_digest
from cdm_cli.jobs.sampling.headers import Header, weights_digest
from cdm_cli.jobs.tune.images import Asked, choose_images
from cdm_cli.jobs.tune.search import Candidate, Space
from cdm_cli.jobs.tune.ways import Way
from cdm_cli.names import Searching, Variance
from cdm_cli.options.judging import TuneOptions
from cdm_cli.options.sampling import Sampling

TRIALS: dict[Searching, int] = {"free": 40, "linear": 16}
REAL = 256  # images, at most, on which the terms of the bound are measured


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
    asked, store = choose_images(options, method, stack)
    header, T = asked.header, asked.header.config.schedule.T
    reference = open_reference(options.judge.ref, header, stack)
    steps = tuple(_check_steps(n, T) for n in sorted(set(options.steps)))
    trials = options.trials or TRIALS[method]
    many = min(options.reference, T) if method == "free" else 0
    chain = chain_of(header.config, replace(options.sampling, steps=steps[0]))
    identity = {
        **asked.fields,
        **_list_sampling_fields(header, chain, options.sampling),
        "stage": config_digest(header.config),
        "weights": weights_digest(header.directory, options.sampling.weights),
        "num": options.num,
        "trials": trials,
        **identify_judge(options.judge),
        "ref": reference.digest,
        **({"search": "free", "reference": many} if method == "free" else {}),
    }
    if store is not None:
        store.require_finished()
    return Search(
        asked,
        method,
        steps,
        trials,
        many,
        options.sampling,
        identity,
        _choose_real(reference, header),
    )


def _choose_real(reference: RealImages, header: Header) -> Store | None:
    """Return the store that judges, if it has what the stage starts from as well."""
    low, store = header.config.conditioning, reference.store
    if store is None:
        return None
    part = next(iter(store.parts.values()))
    return store if low is None or low.resolution in part.resolutions else None


def _list_sampling_fields(header: Header, chain: Chain, sampling: Sampling) -> dict[str, Any]:
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
