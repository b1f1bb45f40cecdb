"""Where two identities differ, and what a person calls the field: its flag, where it has one."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from cdm_cli.options.flag import Identified, find_marks, list_flags
from cdm_cli.options.sampling import Sampling

Fields = Mapping[str, Any]

SHOWN = 4  # differences that a refusal names
LONGEST = 80  # characters of a value that is shown
DIGEST = re.compile("[0-9a-f]{64}")

OF_THE_STAGE = ("resolution", "channels", "process", "variance_fraction", "times")
FOLLOWING = {*OF_THE_STAGE, "alpha_bar", "stochasticity", "between", "labels", "real_digest"}
"""Fields that nobody types, or that follow from others, as classes do from images."""
OF_SAMPLING = {
    item.name: item.names[0].partition("/")[0]
    for item in list_flags(Sampling)
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
        "labels.train": "--labels",
        "labels.val": "--val-labels",
        "ref": "--ref",
        "resolutions": "--resolution",
        "s": "--s",
        "samples_digest": "STORE",
        "sources.train": "SRC",
        "sources.val": "--val",
        "val_digest": "--ref",
    }
)
"""Fields of identities that somebody types, by name, and what a refusal calls them: their flags."""


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


def find_differences(there: Any, here: Any, where: str = "") -> Iterator[FieldDifference]:
    """Yield the fields in which two JSON values differ: what is typed, then what follows from it.

    Both are by name. Of a list that nobody types only the first place that differs is yielded.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted({*there, *here})
        for key in sorted(keys, key=FOLLOWING.__contains__):
            inside = f"{where}.{key}" if where else str(key)
            yield from find_differences(there.get(key, ABSENT), here.get(key, ABSENT), inside)
    elif isinstance(there, list) and isinstance(here, list) and where not in TYPED:
        pairs = enumerate(itertools.zip_longest(there, here, fillvalue=ABSENT))
        found = (find_differences(*pair, f"{where}[{place}]") for place, pair in pairs)
        yield from itertools.islice(itertools.chain.from_iterable(found), 1)
    elif there != here:
        yield FieldDifference(where, there, here)


def find_first_difference(there: Fields, here: Fields) -> FieldDifference | None:
    """Return the first field in which two identities differ, None where they are the same."""
    return next(find_differences(as_json(there), as_json(here)), None)


def as_json(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


def describe_differences(found: Sequence[object]) -> str:
    """Return the first differences in words, and how many there are besides."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(map(str, found[:SHOWN])) + more
