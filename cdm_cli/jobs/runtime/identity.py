"""What identifies samples, and whether what is already there is of the same job.

A job that is typed again continues what it finds. Before that it compares the identity that is
recorded there with its own, field by field, and refuses what differs, so that no store, table,
curve or log holds numbers that were made in two ways. Every job compares and refuses here.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdm_cli.cascade.stagefile import STAGE_FILE
from cdm_cli.config import StageConfig
from cdm_cli.data.durable import find_free_name
from cdm_cli.errors import WouldOverwriteError, quote
from cdm_cli.jobs.runtime.differences import (
    OF_THE_STAGE,
    Fields,
    as_json,
    describe_differences,
    find_differences,
)
from cdm_cli.names import SWEEP_FILE

if TYPE_CHECKING:  # prepare needs no torch
    from cdm_cli.cascade.chain import Chain

POINT = re.compile(r"[a-z-]+-s\d{4,}(-[\w.-]+)?\.(h5|json)")  # of a sweep
UNRECORDED = {"restart_from": "--restart-from", "alpha_bar": "--schedule"}


def list_chain_fields(config: StageConfig, chain: "Chain", seed: int) -> dict[str, Any]:
    """Return what decides the samples of a stage, given its weights and inputs.

    resolution, channels, process (the noise schedule that z/<s> of a store belong to), seed,
    sampler, steps, times (of the process, that the chain visits, where it leaves some out),
    alpha_bar (of a schedule that was searched, where the chain follows one), variance and its
    fraction, clip, restart_from, and stochasticity (of each step, where they have their own).
    """
    schedule = chain.schedule
    partly = {} if chain.stochasticity is None else {"stochasticity": list(chain.stochasticity)}
    respaced = not chain.searched and schedule.T < config.schedule.T
    return {
        "resolution": config.model.resolution,
        "channels": config.model.channels,
        "process": config.schedule.model_dump(mode="json", exclude_none=True),
        "seed": seed,
        "sampler": chain.sampler,
        "steps": schedule.T,
        "times": schedule.times.tolist()[1:] if respaced else None,
        "alpha_bar": schedule.alpha_bar.tolist()[1:] if chain.searched else None,
        "variance": chain.variance,
        "variance_fraction": chain.fraction,
        "clip": chain.clip,
        "restart_from": chain.restart_from,
        **partly,
    }


def complete(there: Fields, here: Fields) -> dict[str, Any]:
    """Add to a recorded identity what earlier versions left out of `list_chain_fields`.

    Curves, searches and selections used to record sampler, steps, clip, seed and variance ("" for
    a sampler that leaves no choice). What follows from these and from the stage's configuration,
    which is compared too, is taken from `here`: `times`, too, as long as nothing else had to be
    visited. `restart_from` and `alpha_bar` are taken to be None, as they are without their
    flags. That is certain for jobs that had no such flags; a curve had, and says that it guesses.
    """
    if not lacks_sampling(there):
        return dict(there)
    implied = {name: here[name] for name in OF_THE_STAGE if name in here}
    found = {**implied, **dict.fromkeys(UNRECORDED), **there}
    if found.get("variance") == "":
        found["variance"] = here.get("variance")
    return found


def lacks_sampling(there: Fields) -> bool:
    """Whether an identity was recorded by a version that left out some of `list_chain_fields`."""
    return not set(UNRECORDED) <= set(there)


def check_same(path: Path, kind: str, there: Fields, here: Fields, *, next: str = "") -> None:
    """Raise WouldOverwriteError naming what differs where `path` holds another job's work.

    kind: what it holds ("sweep"). there, here: the identity recorded, and the one asked for. next:
    as in `other_job_error`.
    """
    found = list(find_differences(as_json(there), as_json(here)))
    if found:
        what = f"{path} is of another {kind}: {describe_differences(found)}"
        raise other_job_error(path, what, next=next)


def other_job_error(out: Path, what: str, *, next: str = "") -> WouldOverwriteError:
    """Return the error of an output that another job made, or nobody knows who.

    out: what -o names, or a file of a sweep. next: what to type, by default another -o.
    """
    return WouldOverwriteError(what, kept="it is untouched", next=next or advise_another(out))


def advise_another(path: Path) -> str:
    """Return an -o that nothing has yet, beside the one that is taken: `-o samples-2.h5`.

    path: what -o names, or a file that a sweep makes, whose -o is the directory.
    """
    of_a_sweep = path.name == SWEEP_FILE or POINT.fullmatch(path.name)
    swept = of_a_sweep and (path.parent / SWEEP_FILE).exists()
    return f"-o {quote(find_free_name(path.parent if swept else path))}"


def has_begun(out: Path, file: str, others: Sequence[str], kind: str) -> bool:
    """Return whether a directory holds `file`, which records the identity of its job.

    Raises WouldOverwriteError where `out` is a file or a stage, or where one of `others`, which the
    job would write, is there without it.
    """
    if out.exists() and not out.is_dir():
        raise other_job_error(out, f"-o {out} is a file, a {kind} needs a directory")
    if (out / file).exists():
        return True
    if (out / STAGE_FILE).exists():
        raise other_job_error(out, f"-o {out} is a stage, a {kind} needs a directory of its own")
    for name in others:
        if os.path.lexists(out / name):
            raise other_job_error(out, f"{out / name} exists and belongs to no {kind}")
    return False


def advise_remaking(out: Path, file: str, others: Sequence[str] = ()) -> str:
    """Return what to type where `file`, which a job wrote into `out`, is damaged.

    The command that wrote it does so again, from what else it made; others: files that it refuses
    to find without that one.
    """
    there = [file, *(name for name in others if name != file and os.path.lexists(out / name))]
    files = " ".join(quote(out / name) for name in there)
    remove = "rm -r" if any((out / name).is_dir() for name in there) else "rm"
    return f"{remove} {files}, then the command that made it, again"


def read_identity(provenance: Fields) -> dict[str, Any]:
    """Return the part of a provenance that must be equal for a run to continue a store, as JSON.

    It is all of it where it has no such part, and {} where that is no object.
    """
    found = as_json(provenance.get("identity", dict(provenance)))
    return found if isinstance(found, dict) else {}
