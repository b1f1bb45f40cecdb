"""How a store of samples was made, read back from its provenance: stage, chain and inputs."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.config import StageConfig
from cdm_cli.data.store import Store, open_store
from cdm_cli.diffusion.between import Rule
from cdm_cli.diffusion.reverse import Fraction
from cdm_cli.diffusion.schedules import Schedule, from_alpha_bar, from_config, respace
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.jobs.runtime.identity import chain_fields, first_difference, identity_in
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.parents import (
    StageFound,
    find_stage_of,
    find_store_of,
    store_digest,
    weights_of,
)
from cdm_cli.jobs.sampling.provenance import parents_of
from cdm_cli.jobs.sampling.rows import StoreRows, choose_rows, part_of
from cdm_cli.jobs.sampling.sample import samples_of_classes
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.jobs.sampling.work import Inputs
from cdm_cli.names import MOST_COUNTED, RUNS, Augment, Precision, Sampler, Variance
from cdm_cli.options.files import VerifyOptions

Count = Annotated[int, Field(ge=0)]


class FromProvenance(BaseModel):
    """Base of models read from a provenance, which may have further fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HowComputed(FromProvenance):
    """`numerics` of a store, or of the part of it that came from another host."""

    batch_size: int = Field(ge=1, le=2**16)
    precision: Precision
    compiled: bool
    device: str
    build: str = ""


class HowMade(FromProvenance):
    """`identity` of a store that `sample` or `upsample` made."""

    command: Literal["sample", "upsample"]
    stage: str
    seed: int = Field(ge=0, lt=2**63)
    sampler: Sampler
    steps: int = Field(ge=1)
    times: tuple[int, ...] | None
    alpha_bar: tuple[float, ...] | None
    stochasticity: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    variance: Variance
    variance_fraction: Fraction
    clip: bool
    restart_from: int | None
    num: int = Field(ge=1)
    first: Count
    keep_s: tuple[int, ...]
    between: Rule | None = None
    classes: tuple[Count, ...] = ()
    counts: tuple[Annotated[int, Field(ge=1, le=MOST_COUNTED)], ...] = ()
    lowres: str = ""
    split: str = ""
    s: Count = 0
    augment: Augment = "non-truncated"

    @property
    def counts_fit(self) -> bool:
        """Whether there is a count for each class, and not too many in all."""
        there = len(self.counts) in (0, len(self.classes))
        return there and sum(self.counts) <= MOST_COUNTED


class MergedPiece(FromProvenance):
    """An entry of `merged`: samples that one part held."""

    first: Count
    num: Count
    numerics: HowComputed


@dataclass(frozen=True)
class Origin:
    """A provenance that was read: how the store was made and computed."""

    made: HowMade
    numerics: HowComputed
    pieces: tuple[MergedPiece, ...]

    def numerics_at(self, row: int) -> HowComputed:
        """Return how the sample at a place of the store was computed."""
        for piece in self.pieces:
            if piece.first <= row < piece.first + piece.num:
                return piece.numerics
        return self.numerics


def read_origin(store: Store) -> Origin:
    """Read the provenance of a store of samples.

    Raises UsageError where no stage made it, BadInputError where something is not told.
    """
    said: Any = identity_in(store.provenance)
    command = said.get("command") if isinstance(said, dict) else None
    if command not in ("sample", "upsample"):
        raise UsageError(
            f"--replay: {store.path} was not made by cdm sample or cdm upsample",
            next="leave --replay away",
        )
    try:
        return Origin(
            HowMade.model_validate(said),
            HowComputed.model_validate(store.provenance.get("numerics")),
            tuple(MergedPiece.model_validate(row) for row in store.provenance.get("merged", ())),
        )
    except (ValidationError, TypeError) as error:
        where = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ("merged",)
        raise BadInputError(
            f"{store.path}: its provenance does not tell {'.'.join(map(str, where))}, "
            "without which its samples cannot be made again",
            kept="its digests are good",
            next="leave --replay away",
        ) from None


def chain_from(config: StageConfig, made: HowMade) -> Chain:
    """Rebuild the chain that `chain_of` fixed for the store. ValueError, IndexError for none."""
    return Chain(
        schedule=_schedule(config, made),
        sampler=made.sampler,
        variance=made.variance,
        fraction=made.variance_fraction,
        clip=made.clip,
        restart_from=made.restart_from,
        searched=made.alpha_bar is not None,
        stochasticity=made.stochasticity,
    )


def _schedule(config: StageConfig, made: HowMade) -> Schedule:
    if made.alpha_bar is not None:
        return from_alpha_bar(torch.tensor(made.alpha_bar, dtype=torch.float64))
    whole = from_config(config.schedule)
    return whole if made.times is None else respace(whole, torch.tensor(made.times))


def stage_for(store: Store, made: HowMade, model: str | None) -> StageFound:
    """Find the stage that made the store: `--model`, or any in runs/.

    Raises MissingError where there is none, MismatchError where --model is another one.
    """
    if model is not None:
        directory = find_stage(model, Path(RUNS))
        found = weights_of(directory, made.stage)
        if found is None:
            raise MismatchError(
                f"--model {model}: none of its weights made {store.path}, whose stage has the "
                f"digest {made.stage[:12]}…",
                next="name the stage that made it",
            )
        return found
    found = find_stage_of(made.stage, Path(RUNS))
    if found is None:
        raise MissingError(
            f"--replay: the stage of {store.path} ({_name_of(store, 'stage')}, digest "
            f"{made.stage[:12]}…) is not in {RUNS}/, or was trained on since",
            next="--model with the directory of that stage",
        )
    return found


def _name_of(store: Store, role: str) -> str:
    rows = parents_of(store.provenance)
    return next((row["name"] for row in rows if row["role"] == role), "not named")


def inputs_of(
    store: Store, made: HowMade, header: Header, options: VerifyOptions, opened: ExitStack
) -> Inputs:
    """Return the function that gives, for a range of the store's places, what the stage was given.

    opened: keeps the store that was upsampled open. Raises BadInputError where the provenance
    names no classes, and MissingError or MismatchError for the store that was upsampled.
    """
    rows = range(made.first, made.first + store.parts[""].num)
    if made.command == "sample":
        if not made.classes or not made.counts_fit:
            raise BadInputError(f"{store.path}: its provenance does not tell classes")
        return lambda places: samples_of_classes(
            rows[places.start : places.stop], made.classes, made.counts
        )
    lowres = opened.enter_context(open_store(_lowres_for(store, made, options.lowres)))
    _, part = part_of(lowres, made.split or None)
    chosen = choose_rows(lowres, part, made.num)[rows.start : rows.stop]
    resolution = header.conditioning.resolution
    source = StoreRows(lowres.path, part, resolution, chosen)
    return Conditioner(header, source, made.s, made.augment, made.seed).samples


def _lowres_for(store: Store, made: HowMade, path: Path | None) -> Path:
    """Find the store that was upsampled: `--lowres`, or one with that digest."""
    name = _name_of(store, "lowres")
    if path is not None:
        digest = store_digest(path)
        if digest and digest != made.lowres:
            raise MismatchError(
                f"--lowres {path}: its digest is {digest[:12]}…, {store.path} was made from "
                f"{name} with {made.lowres[:12]}…",
                next="name the store that was upsampled",
            )
        return path
    found = find_store_of(made.lowres, name, [Path(), store.path.absolute().parent])
    if found is None:
        raise MissingError(
            f"--replay: {name} (digest {made.lowres[:12]}…), from which {store.path} was made, "
            "is not here",
            next="--lowres with its path",
        )
    return found


def check_chain(config: StageConfig, made: HowMade, told: Mapping[str, Any], path: Path) -> Chain:
    """Rebuild a store's chain. Raises BadInputError for one that this stage cannot have."""
    try:
        chain = chain_from(config, made)
        mine = chain_fields(config, chain, made.seed)
        found = first_difference({name: told[name] for name in mine if name in told}, mine)
        if found:
            raise ValueError(str(found))
        assert chain.evaluations
        chain.sample(torch.zeros_like)
        if made.stochasticity and len(made.stochasticity) != chain.schedule.T:
            raise ValueError(f"{len(made.stochasticity)} steps, and times of {chain.schedule.T}")
    except (ValueError, IndexError) as error:
        raise BadInputError(
            f"{path}: its provenance tells of a chain that its stage does not have: {error}",
            next="leave --replay away",
        ) from None
    return chain
