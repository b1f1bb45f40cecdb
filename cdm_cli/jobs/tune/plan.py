"""A search of schedules: its chains and its identity, decided from headers and flags alone."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cdm_cli.cascade.chain import Chain, build_chain
from cdm_cli.data.store import Store
from cdm_cli.diffusion.schedules import Schedule, from_config
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.judging.header import RealImages, identify_judge, open_reference
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling.headers import Header, read_weights_digest
from cdm_cli.jobs.sampling.schedule_file import read_schedules
from cdm_cli.jobs.tune.images import SearchInputs, choose_images
from cdm_cli.jobs.tune.log import read_way
from cdm_cli.jobs.tune.search import Candidate, Space
from cdm_cli.jobs.tune.ways import Way
from cdm_cli.names import Searching, Variance
from cdm_cli.options.judging import TuneOptions
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.units import format_count

TRIALS: dict[Searching, int] = {"free": 40, "linear": 16}
REAL = 256  # images, at most, on which the terms of the bound are measured


@dataclass(frozen=True)
class Search:
    """One search for each number of steps, all of the same images.

    given: ways of `--start`, by their number of steps; those of `steps` are tried. identity: what
    must be equal to continue. real: the images that judge, where there are any to evaluate the
    network on. reference: ancestral steps, 0 for none.
    """

    inputs: SearchInputs
    method: Searching
    steps: tuple[int, ...]
    trials: int
    reference: int
    sampling: Sampling
    given: Mapping[int, Way]
    identity: dict[str, Any]
    real: Store | None

    @property
    def header(self) -> Header:
        """The stage."""
        return self.inputs.header

    @property
    def schedule(self) -> Schedule:
        """The stage's own, all T steps."""
        return from_config(self.header.config.schedule)

    @property
    def s(self) -> int | None:
        """The s of a super-resolution stage."""
        return self.inputs.fields.get("s")

    def make_space(self, steps: int) -> Space:
        """Return the box of linear schedules of so many steps."""
        return Space(steps, float(self.schedule.alpha_bar[-1]), self._list_variances())

    def _list_variances(self) -> tuple[Variance, ...]:
        """Return the stage's own variance, and the other fixed one unless one is asked for."""
        chain = self.build_baseline(self.steps[0])
        if chain.sampler != "ancestral" or self.sampling.variance:
            return (chain.variance,)
        return ("large", "small") if chain.variance == "large" else ("small", "large")

    def build_baseline(self, steps: int) -> Chain:
        """Return the stage's own schedule, respaced to so many steps."""
        return build_chain(self.header.config, replace(self.sampling, steps=steps))

    def build_candidate_chain(self, candidate: Candidate | Way) -> Chain:
        """Return the chain that runs on a candidate, as `--schedule` will."""
        if isinstance(candidate, Way):
            return build_chain(
                self.header.config,
                replace(self.sampling, sampler=candidate.sampler, variance=None, steps=None),
                times=candidate.times,
                stochasticity=candidate.stochasticity,
            )
        ancestral = self.build_baseline(self.steps[0]).sampler == "ancestral"
        update = {"steps": None, "variance": candidate.variance if ancestral else None}
        asked = replace(self.sampling, **update)
        return build_chain(self.header.config, asked, alpha_bar=candidate.alpha_bar)

    def build_reference(self) -> Chain:
        """Return the reference: ancestral sampling in many steps, the stage's own variance."""
        asked = Sampling(sampler="ancestral", steps=self.reference, clip=self.sampling.clip)
        return build_chain(self.header.config, asked)


def plan_work(
    options: TuneOptions, stack: ExitStack, report: Report, before: Searching | None = None
) -> Search:
    """Decide all that headers and flags decide; the stack keeps the stores open.

    before: what the search that is there is of. Raises UsageError, MissingError and MismatchError
    for everything that does not fit.
    """
    method = options.search or before or "free"
    inputs, store = choose_images(options, method, stack, report)
    header, T = inputs.header, inputs.header.config.schedule.T
    reference = open_reference(options.judge.ref, header, stack, report)
    steps = tuple(_check_steps(n, T) for n in sorted(set(options.steps)))
    trials = options.trials or TRIALS[method]
    many = min(options.reference, T) if method == "free" else 0
    chain = build_chain(header.config, replace(options.sampling, steps=steps[0]))
    given = _read_start(options.start, method, steps, T) if options.start else {}
    identity = {
        **inputs.fields,
        **_list_sampling_fields(header, chain, options.sampling),
        "stage": compute_config_digest(header.config),
        "weights": read_weights_digest(header.directory, options.sampling.weights),
        "num": options.num,
        "trials": trials,
        **identify_judge(options.judge),
        "ref": reference.digest,
        **({"search": "free", "reference": many} if method == "free" else {}),
        **({"start": {str(n): asdict(way) for n, way in given.items()}} if given else {}),
    }
    if store is not None:
        store.require_finished()
    real = _choose_real(reference, header)
    return Search(inputs, method, steps, trials, many, options.sampling, given, identity, real)


def _choose_real(reference: RealImages, header: Header) -> Store | None:
    """Return the store that judges, if it has what the stage starts from as well."""
    low, store = header.config.conditioning, reference.store
    if store is None:
        return None
    part = next(iter(store.parts.values()))
    return store if low is None or low.resolution in part.resolutions else None


def _read_start(path: Path, method: Searching, steps: Sequence[int], T: int) -> dict[int, Way]:
    """Return the ways of a schedule file, by their numbers of steps.

    Raises UsageError where the file has none of the steps that are searched, or linear ones are;
    MismatchError where a way of these has more or fewer times than steps, or times beyond T.
    """
    if method == "linear":
        raise UsageError(
            f"--start {path}: a search of linear schedules begins with none",
            next="leave it out, or --search free",
        )
    file = read_schedules(path)
    there = {found.steps: way for found in file.schedules if (way := read_way(found))}
    given = {n: there[n] for n in steps if n in there}
    if not given:
        has, asked = (", ".join(map(str, numbers)) for numbers in (there, steps))
        raise UsageError(
            f"--start {path}: it has schedules of {has or 'no'} steps with times and noise, "
            f"--steps asks for {asked}",
            next="choose a number of steps of these, or leave --start out",
        )
    for n, way in given.items():
        if len(way.times) != n:
            raise MismatchError(
                f"--start {path}: its schedule of {format_count(n, 'step')} has "
                f"{format_count(len(way.times), 'time')}",
                next="leave --start out",
            )
    if late := [t for way in given.values() for t in way.times if t > T]:
        raise MismatchError(
            f"--start {path}: it visits t = {max(late)}, the stage was trained on 1..{T}",
            next="leave --start out",
        )
    return there


def _list_sampling_fields(header: Header, chain: Chain, sampling: Sampling) -> dict[str, Any]:
    """Return what the images of all trials share: not the times, which are searched.

    variance: as asked for; None tries both fixed ones.
    """
    fields = list_chain_fields(header.config, chain, sampling.seed)
    shared = {name: fields[name] for name in fields if name not in ("steps", "times")}
    return {**shared, "variance": sampling.variance}


def _check_steps(steps: int, T: int) -> int:
    if not 1 <= steps <= T:
        raise UsageError(f"--steps {steps}: the stage has 1..{T}", next="--steps 4,16,64")
    return steps
