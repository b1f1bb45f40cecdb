"""One point of a sweep: where its z_s is from, its s, its values on other axes, and its files.

At s = 0 truncated and non-truncated are the same images, the paper's "no conditioning
augmentation"; that point exists once, as "none". Real images are points of their own.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cdm_cli.data.durable import find_free_name
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MissingError, WouldOverwriteError, quote
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.sampling.headers import read_weights_digest
from cdm_cli.jobs.sampling.work import Work
from cdm_cli.options.sweeping import NONE, spell

Kind = Literal["none", "truncated", "non-truncated", "ground-truth", "ground-truth-train"]
KINDS: tuple[Kind, ...] = (
    "none", "truncated", "non-truncated", "ground-truth", "ground-truth-train",
)  # fmt: skip
REAL: dict[Literal["train", "val"], Kind] = {"val": "ground-truth", "train": "ground-truth-train"}
NAME = re.compile(rf"(?:{'|'.join(KINDS)})-s\d+(?:-[\w.-]+)?\.json")
"""The name of a file of numbers of one point."""

DECIDED = {
    "sampler": ("sampler", "steps", "times", "variance"),
    "steps": ("steps", "times"),
    "variance": ("variance",),
    "schedule": ("alpha_bar", "sampler", "steps", "times", "variance"),
    "restart_from": ("restart_from", "steps", "times"),
    "clip": ("clip",),
    "weights": ("weights",),
}
"""The identity fields that each axis decides.

Where a sweep has that axis, each point records them, and the identity of the sweep has none.
"""

LONGEST = 40  # characters of a value in a name


@dataclass(frozen=True)
class Point:
    """One point of a sweep, and the work of upsampling with its setting.

    axes: its values on axes other than s, by field. decided: the identity fields that these axes
    decide (DECIDED).
    """

    augment: Kind
    s: int
    axes: Mapping[str, Any]
    decided: Mapping[str, Any]
    work: Work
    out: Path

    @property
    def labels(self) -> dict[str, Any]:
        """The values that identify the point in its rows: augment, s, and all other axes."""
        return {"augment": self.augment, "s": self.s, **self.axes}

    @property
    def samples(self) -> Path:
        """The path of its upsampled images, a store like any other."""
        others = "".join(f"-{spell(axis)}-{_make_word(value)}" for axis, value in self.axes.items())
        return self.out / f"{self.augment}-s{self.s:04d}{others}.h5"

    @property
    def judged(self) -> Path:
        """The path of its numbers, a JSON file beside the store."""
        return self.samples.with_suffix(".json")


def find_axis_fields(axes: Iterable[str], work: Work) -> dict[str, Any]:
    """Return the identity fields that axes decide, with their values in a work.

    Raises MissingError for weights that are not there.
    """
    fields, names = find_identity_fields(work), {name for axis in axes for name in DECIDED[axis]}
    return {name: fields[name] for name in sorted(names)}


def find_identity_fields(work: Work) -> dict[str, Any]:
    """Return what decides the samples of a work, but for the sizes and digests of its inputs.

    Raises MissingError for weights that are not there.
    """
    header, sampling = work.header, work.sampling
    weights = read_weights_digest(header.directory, sampling.weights)
    return {"weights": weights, **list_chain_fields(header.config, work.chain, sampling.seed)}


def settle_axes(axes: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Return the values on axes as JSON takes them.

    Sampler, steps and variance that were left to the stage are what the stage takes.
    """
    chain = work.chain
    taken = {"sampler": chain.sampler, "steps": chain.schedule.T, "variance": chain.variance}
    plain = {
        axis: value.as_posix() if isinstance(value, Path) else value for axis, value in axes.items()
    }
    return {axis: taken.get(axis, value) for axis, value in plain.items()}


def check_images(samples: Path, judged: Collection[str]) -> None:
    """Raise WouldOverwriteError where the store of a point holds other images than were judged.

    judged: the digests of those. A store that is gone, or half made, passes. Only what the store
    says of itself is read; `cdm verify` reads its images.
    """
    with suppress(MissingError, BadInputError), open_store(samples) as store:
        if store.finished and store.digest not in judged:
            raise WouldOverwriteError(
                f"{samples} holds other images than those that were judged",
                kept="it is untouched",
                next=f"mv {quote(samples)} {quote(find_free_name(Path(samples.name)))}, then the "
                "same command",
            )


def spell_value(value: Any) -> str:
    """Return a value on an axis as it is typed: "none", "yes" or "no", or its text."""
    if value is None or isinstance(value, bool):
        return NONE if value is None else ("yes" if value else "no")
    return str(value)


def _make_word(value: Any) -> str:
    """Return a value as a part of a name; one that is no such part has a digest instead."""
    word = spell_value(value)
    safe = re.sub(r"[^\w.-]+", "_", word, flags=re.ASCII)[-LONGEST:]
    return safe if safe == word else f"{safe}-{hashlib.sha256(word.encode()).hexdigest()[:8]}"
