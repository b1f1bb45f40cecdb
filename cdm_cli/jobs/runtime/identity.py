"""What identifies samples, and whether what is already there is of the same job.

A job that is typed again continues what it finds. Before that it compares the identity that is
recorded there with its own, field by field, and refuses what differs, so that no store, table,
curve or log holds numbers that were made in two ways. Every job compares and refuses here.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cdm_cli.cascade.stagefile import STAGE_FILE
from cdm_cli.config import StageConfig
from cdm_cli.errors import WouldOverwriteError, quote
from cdm_cli.options.flag import Identified, find_marks, flags_of
from cdm_cli.options.sampling import Sampling

if TYPE_CHECKING:  # prepare needs no torch
    from cdm_cli.cascade.chain import Chain

Fields = Mapping[str, Any]

SHOWN = 4  # differences that a refusal names
LONGEST = 80  # characters of a value that is shown
DIGEST = re.compile("[0-9a-f]{64}")


def chain_fields(config: StageConfig, chain: "Chain", seed: int) -> dict[str, Any]:
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


OF_THE_STAGE = ("resolution", "channels", "process", "variance_fraction", "times")
FOLLOWING = {*OF_THE_STAGE, "alpha_bar", "stochasticity", "between"}  # nobody types them
UNRECORDED = {"restart_from": "--restart-from", "alpha_bar": "--schedule"}
OF_SAMPLING = {
    item.name: item.names[0].partition("/")[0]
    for item in flags_of(Sampling)
    if item.name not in find_marks(Sampling, Identified)
}
TYPED = (
    OF_SAMPLING
    | {
        name: f"--{name.replace('_', '-')}"
        for name in (
            "augment",
            "batch_size",
            "classes",
            "crop",
            "draft",
            "epochs",
            "keep_s",
            "label_smoothing",
            "lr",
            "net",
            "num",
            "precision",
            "reference",
            "search",
            "select_lowres",
            "select_num",
            "split",
            "strict",
            "trials",
        )
    }
    | {
        "axes": "--axis",
        "counts": "--like",
        "judge": "--features",
        "resolutions": "--resolution",
        "s": "--s",
    }
)
"""Fields of identities that somebody types, by name, and what a refusal calls them: their flags."""


def complete(there: Fields, here: Fields) -> dict[str, Any]:
    """Add to a recorded identity those fields of `chain_fields` that earlier versions left out.

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
    """Whether an identity was recorded by a version that left out some of `chain_fields`."""
    return not set(UNRECORDED) <= set(there)


class FieldDifference(NamedTuple):
    """One field in which two identities differ, as "training.lr", and its two values."""

    where: str
    there: Any
    here: Any

    @property
    def name(self) -> str:
        """What a person calls the field: its flag, where it has one."""
        return TYPED.get(self.where, self.where)

    def __str__(self) -> str:
        """Return "training.lr was 0.1, is 0.2"."""
        return f"{self.name} was {show_value(self.there)}, is {show_value(self.here)}"

    def side_by_side(self) -> str:
        """Return "--seed is 1 there, 0 here", of two things of one age."""
        return f"{self.name} is {show_value(self.there)} there, {show_value(self.here)} here"


class Absent:
    """The value of a field that one of two identities does not have; None is a value."""


ABSENT = Absent()


def show_value(value: Any) -> str:
    """Return a value as an error shows it: as JSON, a digest or what is long cut short.

    A list stands as it is typed: `251,501`.
    """
    if isinstance(value, list):
        value = ",".join(map(str, cast("list[Any]", value))) or None
    if value is ABSENT or value is None:
        return "absent" if value is ABSENT else "none"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    if DIGEST.fullmatch(text):
        return f"{text[:12]}…"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def differences(there: Any, here: Any, where: str = "") -> Iterator[FieldDifference]:
    """Yield the fields in which two JSON values differ; of a list the first place, or all of it
    where it is typed.

    What is typed comes first, then what follows from it, both by name.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted({*there, *here})
        for key in sorted(keys, key=FOLLOWING.__contains__):
            inside = f"{where}.{key}" if where else str(key)
            yield from differences(there.get(key, ABSENT), here.get(key, ABSENT), inside)
    elif isinstance(there, list) and isinstance(here, list) and where not in TYPED:
        pairs = enumerate(itertools.zip_longest(there, here, fillvalue=ABSENT))
        found = (differences(*pair, f"{where}[{place}]") for place, pair in pairs)
        yield from itertools.islice(itertools.chain.from_iterable(found), 1)
    elif there != here:
        yield FieldDifference(where, there, here)


def find_first_difference(there: Fields, here: Fields) -> FieldDifference | None:
    """Return the first field in which two identities differ, None where they are the same."""
    return next(differences(as_json(there), as_json(here)), None)


def as_json(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


def check_same(
    path: Path, kind: str, there: Fields, here: Fields, *, next: str = "choose another -o"
) -> None:
    """Raise WouldOverwriteError naming what differs where `path` holds another job's work.

    kind: what it holds ("sweep"). there, here: the identity recorded, and the one asked for.
    """
    found = list(differences(as_json(there), as_json(here)))
    if found:
        raise other_job_error(f"{path} is of another {kind}: {tell_differences(found)}", next=next)


def tell_differences(found: Sequence[object]) -> str:
    """Return the first differences in words, and how many there are besides."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(map(str, found[:SHOWN])) + more


def other_job_error(what: str, *, next: str = "choose another -o") -> WouldOverwriteError:
    """Return the error of a path that another job made, or nobody knows who."""
    return WouldOverwriteError(what, kept="it is untouched", next=next)


def has_begun(out: Path, file: str, others: Sequence[str], kind: str) -> bool:
    """Return whether a directory holds `file`, which records the identity of its job.

    Raises WouldOverwriteError where `out` is a file or a stage, or where one of `others`, which the
    job would write, is there without it.
    """
    if out.exists() and not out.is_dir():
        raise other_job_error(f"-o {out} is a file, a {kind} needs a directory")
    if (out / file).exists():
        return True
    if (out / STAGE_FILE).exists():
        raise other_job_error(f"-o {out} is a stage, a {kind} needs a directory of its own")
    for name in others:
        if os.path.lexists(out / name):
            raise other_job_error(f"{out / name} exists and belongs to no {kind}")
    return False


def advise_remaking(out: Path, file: str, others: Sequence[str] = ()) -> str:
    """Return what to type where `file`, which a job wrote into `out`, is damaged.

    The command that wrote it does so again, from what else it made; others: files that it refuses
    to find without that one.
    """
    there = [file, *(name for name in others if name != file and os.path.lexists(out / name))]
    files = " ".join(quote(out / name) for name in there)
    return f"rm {files}, then the command that made it, again"


def read_identity(provenance: Fields) -> dict[str, Any]:
    """Return the part of a provenance that must be equal for a run to continue a store, as JSON.

    It is all of it where it has no such part, and {} where that is no object.
    """
    found = as_json(provenance.get("identity", dict(provenance)))
    return found if isinstance(found, dict) else {}
