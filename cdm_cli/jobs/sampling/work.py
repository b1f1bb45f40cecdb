"""A store to be made, decided from headers and flags: what it will hold, and what identifies it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.config import StageConfig
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import open_store
from cdm_cli.diffusion.schedules import from_config, respace
from cdm_cli.jobs.runtime.identity import list_chain_fields, read_identity
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.jobs.sampling.headers import Header, read_weights_digest
from cdm_cli.jobs.sampling.numerics import Numerics
from cdm_cli.jobs.sampling.provenance import make_parent, make_provenance
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report

MakeInputs = Callable[[range], SampleInputs]
"""Returns the inputs of the network for places within the rows of a store."""


@dataclass(frozen=True)
class Work:
    """A store to be made, as headers and flags decide it.

    samples: which of all num samples it holds (`--part`). make_inputs: called with a range of
    places within the store, returns the network's inputs. fields: what belongs to the identity of
    the samples of this command alone (`make_spec` has all of it). equivalent_command: one that asks
    for the same, with flags for what was applied to the stage. block_size: samples of a block, of a
    store that is there its own. most_at_once: samples of a batch at most. Both None: by the number
    of samples.
    """

    command: str
    equivalent_command: str
    sampling: Sampling
    header: Header
    chain: Chain
    num: int
    samples: range
    make_inputs: MakeInputs
    classes: tuple[str, ...]
    fields: Mapping[str, Any]
    parents: tuple[dict[str, str], ...] = ()
    keep: tuple[int, ...] = ()
    block_size: int | None = None
    most_at_once: int | None = None


def list_facts(work: Work) -> dict[str, Any]:
    """Return the facts of a work that must be equal in every process, all read from headers."""
    header = work.header
    return {
        "stage": compute_config_digest(header.config),
        "weights": read_weights_digest(header.directory, work.sampling.weights),
        "classes of the store": list(work.classes),
        **_list_fields(work),
    }


def _list_fields(work: Work) -> dict[str, Any]:
    """Return what decides the samples of a work, given the weights of its stage."""
    return {
        **list_chain_fields(work.header.config, work.chain, work.sampling.seed),
        **work.fields,
        "num": work.num,
        "first": work.samples.start,
        "keep_s": list(work.keep),
    }


def make_spec(work: Work, digest: str, numerics: Numerics) -> StoreSpec:
    """Return the store's contents and provenance. digest: of the stage.

    Its identity, which a run that continues must equal: command, digest of the stage,
    `list_chain_fields` with the seed, work.fields, num, first, keep_s, and the rule for states that
    the chain steps over. Numerics and note stand beside it.
    """
    model = work.header.config.model
    side, name = model.resolution, work.header.directory.resolve().name
    identity = {
        "command": work.command,
        "stage": digest,
        **_list_fields(work),
        **_list_rule(work.chain, work.keep),
    }
    parents = [make_parent("stage", name, digest), *work.parents]
    part = PartSpec(
        num=len(work.samples),
        resolutions={side: model.channels},
        z={s: (side, side, model.channels) for s in work.keep},
    )
    return StoreSpec(
        kind="samples",
        parts={"": part},
        classes=list(work.classes),
        provenance=make_provenance(
            work.equivalent_command,
            identity,
            parents,
            numerics=asdict(numerics),
            note=work.sampling.note,
        ),
        block_size=work.block_size or choose_block_size(work.num),
    )


def _list_rule(chain: Chain, keep: Sequence[int]) -> dict[str, str]:
    """Return by which rule states were made that the chain steps over, if any of them are kept."""
    stepped_over = set(keep) - set(chain.schedule.times.tolist())
    return {"between": chain.rule} if stepped_over else {}


def choose_kept_times(asked: Sequence[int]) -> tuple[int, ...]:
    """Return the times whose z_s are kept, ascending; z_0 is the image itself."""
    return tuple(sorted(set(asked) - {0}))


def adopt_block_size(work: Work, out: Path) -> Work:
    """Return the work with the block size of a store that is there; samples do not depend on it."""
    if not out.exists():
        return work
    with open_store(out) as store:
        return replace(work, block_size=store.contents.block_size)


def keep_old_chain(work: Work, out: Path, report: Report) -> Work:
    """Return the work with the chain of `out`, if that was begun when `--keep-s` added steps.

    Its samples are others than those of today's chain, but all of one kind.
    """
    older = _step_on(work.keep, work.chain, work.header.config)
    if older is None or not out.exists():
        return work
    with open_store(out) as store:
        there = read_identity(store.provenance)
    kept = list(work.keep), older.schedule.times.tolist()[1:], None
    if tuple(map(there.get, ("keep_s", "times", "between"))) != kept:
        return work
    report.say(f"{out} was begun by an older cdm, whose --keep-s adds steps: it is finished so")
    return replace(work, chain=older)


def _step_on(keep: Sequence[int], chain: Chain, config: StageConfig) -> Chain | None:
    """Return the chain with the kept times as steps too, None if they are steps already."""
    times = set(chain.schedule.times.tolist())
    if times >= set(keep):
        return None
    wanted = torch.tensor(sorted({*times, *keep} - {0}))
    return replace(chain, schedule=respace(from_config(config.schedule), wanted))
