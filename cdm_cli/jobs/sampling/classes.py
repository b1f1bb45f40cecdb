"""Which classes are sampled, and which sample shows which: `0-9,17,tench`.

Sample i shows classes[i % K], so that every prefix of a store is as balanced as it can be
(in a store ordered by class "the first 10,000" would be a few classes only).
"""

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cdm_cli.errors import UsageError, make_printable, quote
from cdm_cli.names import MOST_SAMPLES
from cdm_cli.units import format_count

RANGE = re.compile(r"(\d+)(?:-(\d+))?")
SHOWN = 5  # names in one line
QUOTED = re.compile(r'"([^"]*)"')
PER_CLASS = 10  # where neither --num nor --per-class is given


def find_empty_classes(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """Return the ids below num_classes that no label [N] has."""
    return tuple(np.setdiff1d(np.arange(num_classes), labels).tolist())


def find_classes_with_images(num_classes: int, empty: Sequence[int]) -> tuple[int, ...]:
    """Return the ids of all classes but the empty ones."""
    return tuple(np.setdiff1d(np.arange(num_classes), empty).tolist())


def describe_empty(names: Sequence[str], empty: Sequence[int]) -> str:
    """Say in one line which classes have no image: "2 of 13 classes without an image: …"."""
    told = ", ".join(f"{names[k]!r} (id {k})" for k in empty[:SHOWN])
    more = ", …" if len(empty) > SHOWN else ""
    return f"{len(empty)} of {format_count(len(names), 'class')} without an image: {told}{more}"


def parse_classes(
    text: str | None, names: Sequence[str], empty: Sequence[int] = ()
) -> tuple[int, ...]:
    """Return the class ids that a list names, each once, in the order given.

    None is all but the empty ones, which no image showed, and which are an error if named. A
    number is an id and `3-7` a range of ids, both ends included; anything else is a name. Where
    a class is called by such a number or range, and that is another one, it is an error. A name
    may contain commas and spaces ("tench, Tinca tinca"), may be put in double quotes, where it
    is never an id, and its part before the first comma suffices where only one class begins so.
    Raises UsageError with the nearest names for an unknown one.
    """
    if text is None:
        return find_classes_with_images(len(names), empty)
    words = _split_words(text)
    found: dict[int, None] = {}
    while words:
        ids, used = _take_first(words, names)
        found.update(dict.fromkeys(ids))
        words = words[used:]
    if not found:
        raise UsageError("--classes: the list is empty", next="--classes 0-9")
    if hollow := sorted(found.keys() & set(empty)):
        raise UsageError(
            f"--classes {text}: {describe_empty(names, hollow)}",
            next="leave them out; without --classes, all that have images are drawn",
        )
    return tuple(found)


def _split_words(text: str) -> list[str]:
    """Split at commas outside double quotes; the quotes stay, to mark names."""
    words = re.findall(r'\s*("[^"]*"|[^,]*)\s*(?:,|$)', text)
    return [word.strip() for word in words if word.strip()]


def _take_first(words: list[str], names: Sequence[str]) -> tuple[list[int], int]:
    """Return the ids that the first words mean, and how many words that took."""
    if match := RANGE.fullmatch(words[0]):
        return _parse_range(words[0], match, names), 1
    if match := QUOTED.fullmatch(words[0]):
        return [_find_class(match[1], names)], 1
    for used in range(len(words), 1, -1):  # the longest name first: names may hold commas
        known = _look_up(", ".join(words[:used]), names)
        if known is not None:
            return [known], used
    return [_find_class(words[0], names)], 1


def _parse_range(word: str, match: re.Match[str], names: Sequence[str]) -> list[int]:
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first and word not in names:
        raise UsageError(f"--classes {word}: the range runs down", next=f"{last}-{first}")
    if not first <= last < len(names):
        if word in names:  # it can only be the name
            return [names.index(word)]
        what = f"--classes {word}: the classes are 0-{len(names) - 1}"
        raise UsageError(what, next="ids or names of these, which cdm inspect STAGE lists")
    _check_one_meaning(word, first, last, names)
    return list(range(first, last + 1))


def _check_one_meaning(word: str, first: int, last: int, names: Sequence[str]) -> None:
    """Raise UsageError where a range of ids, or an id in it, is also the name of another class."""
    places = {name: k for k, name in enumerate(names)}
    called = [str(k) for k in range(first, last + 1) if places.get(str(k), k) != k]
    if last > first and word in places:
        called.insert(0, word)
    if not called:
        return
    name = called[0]
    id_ = int(name) if name.isdigit() else first
    raise UsageError(
        f"--classes {word}: {name} is the name of class {places[name]}, and as an id it is "
        f"class {names[id_]!r}",
        next="--classes "
        + quote(f'"{name}"')
        + ", in double quotes, is the name; or "
        + quote(f'"{names[id_]}"'),
    )


def _normalise(name: str) -> str:
    return re.sub(r"\s*,\s*", ", ", name.strip()).casefold()


def _look_up(name: str, names: Sequence[str]) -> int | None:
    """Return the class of that name: exactly, else in any case, by its first synonym, or as shown.

    A name of two lines is shown, and so typed, with a backslash and an n.
    """
    if name in names:
        return names.index(name)
    wanted = _normalise(name)
    spelled = [_normalise(known) for known in names]
    shown = [_normalise(make_printable(known)) for known in names]
    for keys in (spelled, [known.partition(", ")[0] for known in spelled], shown):
        hits = [index for index, key in enumerate(keys) if key == wanted]
        if len(hits) == 1:
            return hits[0]
    return None


def _find_class(word: str, names: Sequence[str]) -> int:
    known = _look_up(word, names)
    if known is not None:
        return known
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4) or list(names[:3])
    raise UsageError(
        f"--classes {word}: no class has this name; nearest are {', '.join(map(repr, near))}",
        next="cdm inspect shows the names; a number is an id, in double quotes a name",
    )


def count_samples(num: int | None, per_class: int | None, num_classes: int) -> int:
    """Return how many samples are asked for; 10 of each class where nothing is said.

    Raises UsageError for more than a store holds.
    """
    count = num if num is not None else (per_class or PER_CLASS) * num_classes
    if count > MOST_SAMPLES:
        raise UsageError(
            f"--per-class {per_class}: {count} samples, a store holds {MOST_SAMPLES} at most",
            next=f"--per-class {MOST_SAMPLES // num_classes}",
        )
    return count


def reduce_counts(counts: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest counts in the same proportions; () where all are alike."""
    least = math.gcd(*counts)
    return () if len(set(counts)) == 1 else tuple(count // least for count in counts)


def assign_labels(
    ids: np.ndarray, classes: Sequence[int], counts: Sequence[int] = ()
) -> np.ndarray:
    """Return the class of each sample id, int64: interleaved, balanced or as often as counted.

    counts: how often each class comes in sum(counts) ids in a row, evenly spread over these.
    """
    order = _spread_evenly(tuple(counts)) if counts else np.arange(len(classes))
    return np.asarray(classes, dtype=np.int64)[order[ids % len(order)]]


@lru_cache(maxsize=1)
def _spread_evenly(counts: tuple[int, ...]) -> np.ndarray:
    """Return places within counts, each as often as counted and evenly spread, int64."""
    places = np.repeat(np.arange(len(counts)), counts)
    each = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return places[np.lexsort((places, each))]
