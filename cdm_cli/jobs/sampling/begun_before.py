"""A store that an older version began is finished as it was begun."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.config import StageConfig
from cdm_cli.data.store import open_store
from cdm_cli.diffusion.schedules import from_config, respace
from cdm_cli.jobs.runtime.identity import identity_in
from cdm_cli.jobs.sampling.make import Work
from cdm_cli.report import Report


def as_it_began(work: Work, out: Path, report: Report) -> Work:
    """Return the work with the chain of `out`, if that was begun when `--keep-s` added steps.

    Its samples are others than those of today's chain, but all of one kind.
    """
    older = _stepping_on(work.keep, work.chain, work.header.config)
    if older is None or not out.exists():
        return work
    with open_store(out) as store:
        there: Any = identity_in(store.provenance)
    kept = list(work.keep), older.schedule.times.tolist()[1:], None
    if not isinstance(there, dict) or _read_kept(there) != kept:
        return work
    report.say(f"{out} was begun by an older cdm, whose --keep-s adds steps: it is finished so")
    return replace(work, chain=older)


def _read_kept(there: dict[str, Any]) -> tuple[Any, Any, Any]:
    return there.get("keep_s"), there.get("times"), there.get("between")


def _stepping_on(keep: Sequence[int], chain: Chain, config: StageConfig) -> Chain | None:
    """Return the chain that steps on the kept times as well, None where it does already."""
    times = set(chain.schedule.times.tolist())
    if times >= set(keep):
        return None
    wanted = torch.tensor(sorted({*times, *keep} - {0}))
    return replace(chain, schedule=respace(from_config(config.schedule), wanted))
