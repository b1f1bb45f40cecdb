"""Which classes are sampled, and which sample shows which: `0-9,17,tench`.

Sample i shows classes[i % K], so that every prefix of a store is as balanced as it can be
(numerics: a class-ordered store would make "the first 10,000" a few classes only).
"""

import difflib
import re
from collections.abc import Sequence

import numpy as np

from cdm_cli.errors import UsageError

RANGE = re.compile(r"(\d+)(?:-(\d+))?")
QUOTED = re.compile(r'"([^"]*)"')
PER_CLASS = 10  # where neither --num nor --per-class is given


def parse_classes(text: str | None, names: Sequence[str]) -> tuple[int, ...]:
    """Return the class ids that a list names, each once, in the order given; None is all.

    A number is always an id and `3-7` a range of ids, both ends included; anything else is a
    name. A name may contain commas and spaces ("tench, Tinca tinca"), may be put in double
    quotes (which also makes a number a name), and its part before the first comma suffices
    where only one class begins so. Raises UsageError with the nearest names for an unknown one.
    """
    if text is None:
        return tuple(range(len(names)))
    words = _words(text)
    found: dict[int, None] = {}
    while words:
        ids, used = _first(words, names)
        found.update(dict.fromkeys(ids))
        words = words[used:]
    if not found:
        raise UsageError("--classes: the list is empty", next="--classes 0-9")
    return tuple(found)


def _words(text: str) -> list[str]:
    """Split at commas outside double quotes; the quotes stay, to mark names."""
    words = re.findall(r'\s*("[^"]*"|[^,]*)\s*(?:,|$)', text)
    return [word.strip() for word in words if word.strip()]


def _first(words: list[str], names: Sequence[str]) -> tuple[list[int], int]:
    """Return the ids that the first words mean, and how many words that took."""
    if match := RANGE.fullmatch(words[0]):
        return _ids(words[0], match, len(names)), 1
    if match := QUOTED.fullmatch(words[0]):
        return [_named(match[1], names)], 1
    for used in range(len(words), 1, -1):  # the longest name first: names may hold commas
        known = _lookup(", ".join(words[:used]), names)
        if known is not None:
            return [known], used
    return [_named(words[0], names)], 1


def _ids(word: str, match: re.Match[str], num: int) -> list[int]:
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise UsageError(f"--classes {word}: the range runs down", next=f"{last}-{first}")
    if last >= num:
        raise UsageError(f"--classes {word}: the classes are 0-{num - 1}", next="see cdm inspect")
    return list(range(first, last + 1))


def _spelling(name: str) -> str:
    return re.sub(r"\s*,\s*", ", ", name.strip()).casefold()


def _lookup(name: str, names: Sequence[str]) -> int | None:
    """Return the class of that name: exactly, else in any case, else by its first synonym."""
    if name in names:
        return names.index(name)
    wanted = _spelling(name)
    spelled = [_spelling(known) for known in names]
    for keys in (spelled, [known.partition(", ")[0] for known in spelled]):
        hits = [index for index, key in enumerate(keys) if key == wanted]
        if len(hits) == 1:
            return hits[0]
    return None


def _named(word: str, names: Sequence[str]) -> int:
    known = _lookup(word, names)
    if known is not None:
        return known
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4) or list(names[:3])
    raise UsageError(
        f"--classes {word}: no class has this name; nearest are {', '.join(map(repr, near))}",
        next="cdm inspect shows the names; a number is an id",
    )


def sample_count(num: int | None, per_class: int | None, num_classes: int) -> int:
    """Return how many samples are asked for; 10 of each class where nothing is said.

    Raises UsageError where both --num and --per-class are given.
    """
    if num is not None and per_class is not None:
        raise UsageError("--num and --per-class exclude each other", next="give one of them")
    return num if num is not None else (per_class or PER_CLASS) * num_classes


def labels_of(ids: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Return the class of each sample id, int64: balanced and interleaved."""
    return np.asarray(classes, dtype=np.int64)[ids % len(classes)]
