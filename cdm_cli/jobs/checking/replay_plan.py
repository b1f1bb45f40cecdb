"""What a replay needs: the stage, chain and inputs that made a store, and which batches to make."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.config import StageConfig
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.diffusion.schedules import Schedule, from_alpha_bar, from_config, respace
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.jobs.checking.origin import HowComputed, HowMade, Origin
from cdm_cli.jobs.runtime.differences import find_first_difference
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.parents import (
    StageFound,
    find_stage_of,
    find_store_digest,
    find_store_of,
    find_weights,
)
from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.jobs.sampling.sample import make_inputs
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_part, choose_rows
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.jobs.sampling.work import MakeInputs
from cdm_cli.names import RUNS
from cdm_cli.options.files import VerifyOptions
from cdm_cli.units import format_count


def check_chain(config: StageConfig, how: HowMade, told: Mapping[str, Any], path: Path) -> Chain:
    """Rebuild the chain of a store. Raises BadInputError for one that this stage cannot have.

    told: the identity in the store's provenance. path: of the store.
    """
    try:
        chain = rebuild_chain(config, how)
        mine = list_chain_fields(config, chain, how.seed)
        found = find_first_difference({name: told[name] for name in mine if name in told}, mine)
        if found:
            raise ValueError(str(found))
        assert chain.evaluations
        chain.sample(torch.zeros_like)
        if how.stochasticity and len(how.stochasticity) != chain.schedule.T:
            raise ValueError(f"{len(how.stochasticity)} steps, and times of {chain.schedule.T}")
    except (ValueError, IndexError) as error:
        raise BadInputError(
            f"{path}: its provenance tells of a chain that its stage does not have: {error}",
            next="leave --replay away",
        ) from None
    return chain


def rebuild_chain(config: StageConfig, how: HowMade) -> Chain:
    """Rebuild the chain that `build_chain` fixed for the store.

    Raises ValueError or IndexError for times and a schedule that make no chain.
    """
    return Chain(
        schedule=_rebuild_schedule(config, how),
        sampler=how.sampler,
        variance=how.variance,
        fraction=how.variance_fraction,
        clip=how.clip,
        restart_from=how.restart_from,
        searched=how.alpha_bar is not None,
        stochasticity=how.stochasticity,
    )


def _rebuild_schedule(config: StageConfig, how: HowMade) -> Schedule:
    if how.alpha_bar is not None:
        return from_alpha_bar(torch.tensor(how.alpha_bar, dtype=torch.float64))
    whole = from_config(config.schedule)
    return whole if how.times is None else respace(whole, torch.tensor(how.times))


def find_making_stage(store: Store, how: HowMade, model: str | None) -> StageFound:
    """Find the stage that made the store: `--model`, or any in runs/.

    Raises MissingError where there is none, MismatchError where --model is another one.
    """
    if model is not None:
        directory = find_stage(model, Path(RUNS))
        found = find_weights(directory, how.stage)
        if found is None:
            raise MismatchError(
                f"--model {model}: none of its weights made {store.path}, whose stage has the "
                f"digest {how.stage[:12]}…",
                next="name the stage that made it",
            )
        return found
    found = find_stage_of(how.stage, Path(RUNS))
    if found is None:
        raise MissingError(
            f"--replay: the stage of {store.path} ({_name_parent(store, 'stage')}, digest "
            f"{how.stage[:12]}…) is not in {RUNS}/, or was trained on since",
            next="--model with the directory of that stage",
        )
    return found


def _name_parent(store: Store, role: str) -> str:
    rows = list_parents(store.provenance)
    return next((row["name"] for row in rows if row["role"] == role), "not named")


def find_inputs(
    store: Store, how: HowMade, header: Header, options: VerifyOptions, opened: ExitStack
) -> MakeInputs:
    """Return the function from a range of places in the store to the inputs of these samples.

    opened: keeps the store that was upsampled open. Raises BadInputError where the provenance
    names no classes, and MissingError or MismatchError for the store that was upsampled.
    """
    rows = range(how.first, how.first + store.parts[""].num)
    if how.command == "sample":
        if not how.classes or not how.counts_fit:
            raise BadInputError(f"{store.path}: its provenance does not tell classes")
        return lambda places: make_inputs(rows[places.start : places.stop], how.classes, how.counts)
    lowres = opened.enter_context(open_store(_find_lowres(store, how, options.lowres)))
    _, part = choose_part(lowres, how.split or None)
    chosen = choose_rows(lowres, part, how.num)[rows.start : rows.stop]
    resolution = header.conditioning.resolution
    images = StoreImages(part, resolution, chosen)
    return Conditioner(header, images, how.s, how.augment, how.seed).make_inputs


def _find_lowres(store: Store, how: HowMade, path: Path | None) -> Path:
    """Find the store that was upsampled: `--lowres`, or one with that digest."""
    name = _name_parent(store, "lowres")
    if path is not None:
        digest = find_store_digest(path)
        if digest and digest != how.lowres:
            raise MismatchError(
                f"--lowres {path}: its digest is {digest[:12]}…, {store.path} was made from "
                f"{name} with {how.lowres[:12]}…",
                next="name the store that was upsampled",
            )
        return path
    found = find_store_of(how.lowres, name, [Path(), store.path.absolute().parent])
    if found is None:
        raise MissingError(
            f"--replay: {name} (digest {how.lowres[:12]}…), from which {store.path} was made, "
            "is not here",
            next="--lowres with its path",
        )
    return found


class ReplayBatch(NamedTuple):
    """A compute batch: rows of one block, and how they were computed."""

    block: int
    rows: range
    numerics: HowComputed


def choose_places(num: int, count: int, seed: int, path: Path) -> list[int]:
    """Draw `count` different places within 0..num-1; return them ascending. Raises UsageError."""
    if count > num:
        raise UsageError(
            f"--replay {count}: {path} has {format_count(num, 'sample')}", next=f"--replay {num}"
        )
    return sorted(np.random.default_rng(seed).choice(num, count, replace=False).tolist())


def find_batches(part: Part, chosen: list[int], origin: Origin) -> list[ReplayBatch]:
    """Return the compute batches that hold the chosen places, each once, in order."""
    found: dict[int, ReplayBatch] = {}
    for row in chosen:
        block, numerics = row // part.block_size, origin.find_numerics_at(row)
        inside = part.list_rows(block)
        start = inside.start + (row - inside.start) // numerics.batch_size * numerics.batch_size
        rows = range(start, min(start + numerics.batch_size, inside.stop))
        found.setdefault(start, ReplayBatch(block, rows, numerics))
    return list(found.values())
