"""What is wrong with a value, as a sentence: the only place that knows the words of pydantic."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MinLen

if TYPE_CHECKING:  # `cdm --help` needs no pydantic
    from pydantic import ValidationError

WHOLE, NUMBER, TEXT = "expected a whole number", "expected a number", "expected text"
LIST, GROUP = "expected a list, as 1,2,4", "expected a group of settings"
SENTENCES = {
    "missing": "is missing",
    "missing_argument": "is missing",
    "extra_forbidden": "there is no such setting",
    "unexpected_keyword_argument": "there is no such setting",
    "none_required": "expected nothing",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "int_parsing_size": "the number has too many digits",
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": TEXT,
    "string_unicode": "expected UTF-8 text",
    "path_type": "expected a path",
    "tuple_type": LIST,
    "list_type": LIST,
    "dict_type": GROUP,
    "mapping_type": GROUP,
    "model_type": GROUP,
    "dataclass_type": GROUP,
    "model_attributes_type": GROUP,
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected {le} or less",
    "too_short": "expected {min_length} or more of them, found {actual_length}",
    "too_long": "expected {max_length} of them at most",
    "literal_error": "expected {expected}",
    "union_tag_invalid": "kind {tag} is none of {expected_tags}",
    "union_tag_not_found": "kind is missing",
    "json_invalid": "is no JSON: {error}",
    "json_type": "expected JSON",
    "value_error": "{error}",
    "recursion_loop": "refers to itself",
}
OTHERWISE = "is not what is expected here"
KINDS = {"base", "sr", "classifier"}  # stand in the place of a fault, but are no settings
CHOICE = re.compile(r"^'.*' is not one of (.*)\.$")
LARGE = 2**62  # from here on a limit is said as a power of two
LISTED = ("", "one of ")
SAME = {"gpu": "cuda", "float32": "fp32", "bfloat16": "bf16", "jpg": "jpeg"}  # as others say it


class Fault(NamedTuple):
    """The first thing that is wrong. parts: the names on the way to it; value: what was given."""

    parts: tuple[int | str, ...]
    value: object
    sentence: str

    @property
    def where(self) -> str:
        """The place as a user writes it, "model.channel_mult.0", "" for the whole."""
        return ".".join(map(str, self.parts))


def find_fault_in(error: "ValidationError") -> Fault:
    """Return the first fault of a model or value that could not be validated."""
    found = error.errors(include_url=False)[0]
    told: Mapping[str, Any] = found.get("ctx", {})
    parts = tuple(part for part in found["loc"] if not _is_branch(part))
    return Fault(parts, found["input"], _write_sentence(found["type"], told, found["input"]))


def _is_branch(part: int | str) -> bool:
    """Whether a part of a place names a branch of a union of types, which no user wrote."""
    return isinstance(part, str) and (
        part in KINDS or part in ("int", "float") or bool(re.search(r"[\[(]", part))
    )


def _write_sentence(kind: str, told: Mapping[str, Any], value: object) -> str:
    """Return our sentence for a kind of fault, with the near name where there are names."""
    sentence = SENTENCES.get(kind, OTHERWISE).format_map({k: str(v) for k, v in told.items()})
    choice = CHOICE.match(sentence)  # typer's words for a flag of a few values
    names = re.findall(r"'([^']*)'", choice[1] if choice else str(told.get("expected", "")))
    if not names:
        return sentence
    return suggest_near(f"expected {LISTED[len(names) > 1]}{', '.join(names)}", str(value), names)


def suggest_near(sentence: str, word: str, names: Iterable[str]) -> str:
    """Return the sentence, with the name that a mistyped word is nearest to, if one is near."""
    found = find_near(word, names)
    return f"{sentence.rstrip('.')}; did you mean {found[0]}?" if found else sentence


def find_near(word: str, names: Iterable[str], n: int = 1) -> list[str]:
    """Return up to n names similar to a mistyped word, ignoring case; the most similar first."""
    spelled = {name.lower(): name for name in names}
    if SAME.get(word.lower()) in spelled:
        return [SAME[word.lower()]]
    return [spelled[name] for name in difflib.get_close_matches(word.lower(), spelled, n=n)]


def range_in_words(said: Sequence[Any]) -> str:
    """Return the range that limits beside a type leave: "1 to 64", "more than 0, less than 1"."""
    low = [f"{limit.ge}" for limit in said if isinstance(limit, Ge)]
    high = [f"{limit.le}" for limit in said if isinstance(limit, Le)]
    above = [f"more than {limit.gt}" for limit in said if isinstance(limit, Gt)]
    below = [f"less than {_write_power(limit.lt)}" for limit in said if isinstance(limit, Lt)]
    some = ["one or more" for limit in said if isinstance(limit, MinLen)]
    if low and high:
        return f"{low[0]} to {high[0]}"
    least = [f"{limit} or more" for limit in low]
    most = [f"{limit} at most" for limit in high]
    return ", ".join([*least, *above, *below, *most, *some])


def _write_power(limit: Any) -> str:
    return f"2^{int(limit).bit_length() - 1}" if limit > LARGE else str(limit)
