"""What was left out and why: a count and the first names for every reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdm_cli.errors import make_printable

EXAMPLES = 5


@dataclass
class Skips:
    """Counts what a listing or reading leaves out, with the first names of each reason."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, reason: str, name: str) -> None:
        """Count one thing left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        first = self.examples.setdefault(reason, [])
        if len(first) < EXAMPLES:
            first.append(make_printable_name(name))

    @property
    def total(self) -> int:
        """How many things were left out."""
        return sum(self.counts.values())

    def as_json(self) -> Mapping[str, object]:
        """Reason -> {"count", "first"}, the most frequent reason first."""
        ordered = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return {
            reason: {"count": self.counts[reason], "first": self.examples[reason]}
            for reason in ordered
        }


def as_unicode(name: str) -> str:
    """Write a name in Unicode; bytes that were not UTF-8, and halves of a pair, become escapes."""
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # "\\ud800" in JSON is no letter, and no byte either
        data = name.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def make_printable_name(name: str) -> str:
    """Escape what is not text: control characters, and what `as_unicode` escapes."""
    return make_printable(as_unicode(name))
