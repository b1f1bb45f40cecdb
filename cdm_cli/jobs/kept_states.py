"""What a store says of its z_s, and why one of an older version cannot be continued."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdm_cli.cascade.generate import Chain
from cdm_cli.data.schema import StoreSpec
from cdm_cli.data.store import identity, open_store
from cdm_cli.diffusion.between import rule_of
from cdm_cli.errors import WouldOverwriteError


def states_fields(chain: Chain, keep: Sequence[int]) -> dict[str, Any]:
    """Return by which rule states were made that the chain steps over, if any are kept."""
    stepped_over = set(keep) - set(chain.schedule.times.tolist())
    return {"between": rule_of(chain.sampler)} if stepped_over else {}


def check_same_states(spec: StoreSpec, out: Path) -> None:
    """Raise WouldOverwriteError where `out` was begun when chains stepped on what they kept.

    All its samples are others than those of today's chain, which differs in `times` alone.
    """
    if not out.exists():
        return
    with open_store(out) as store:
        there = identity(store.provenance)
    if _stepped_on_kept(there, identity(spec.provenance)):
        raise WouldOverwriteError(
            f"{out} was made by an older cdm, whose --keep-s added steps and changed z_0",
            kept="it was left as it is",
            next="choose another name with -o, or finish it with that version",
        )


def _stepped_on_kept(there: Any, here: Mapping[str, Any]) -> bool:
    if not isinstance(there, dict) or "between" not in here or "between" in there:
        return False
    steps = sorted({*(here["times"] or ()), *here["keep_s"]})
    left = {name: value for name, value in here.items() if name != "between"}
    return there == {**left, "times": steps, "steps": len(steps)}
