"""How a job reports to whoever waits for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Report(Protocol):
    """What a job may tell the person who waits; nothing below the commands prints."""

    def say(self, line: str) -> None:
        """Tell one line (stderr)."""
        ...

    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Callable[[int, str], None]]:
        """Open a progress bar; call the result with (count done since last call, note).

        total counts the whole, and done what of it an earlier run has done. A bar that is opened
        while another one is shown is part of what that one counts.
        """
        ...
