"""Lengths of time as people type them: 90s, 45m, 11h50m, 2d."""

import re
from collections.abc import Callable

from cdm_cli.errors import UsageError

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
FORM = re.compile("".join(rf"(?:(\d{{1,6}}){unit})?" for unit in UNITS))


def parse_seconds(text: str) -> int | None:
    """Return a length of time in seconds, 1 or more; None for other words, and for 0."""
    match = FORM.fullmatch(text.replace(" ", ""))
    counts = [int(count or 0) for count in match.groups()] if match else [0]
    return sum(count * unit for count, unit in zip(counts, UNITS.values(), strict=False)) or None


def make_duration_check(flag: str) -> Callable[[str], str]:
    """Return a function that returns a length of time as it was typed, or raises UsageError."""

    def check_duration(text: str) -> str:
        if parse_seconds(text) is None:
            raise UsageError(
                f"{flag} {text}: expected a length of time, as 11h50m, 45m or 90s",
                next=f"{flag} 1h",
            )
        return text

    return check_duration
