"""What happens between two steps besides training: pictures, accuracy, the choice of the best.

An extra reads the averaged weights and touches nothing that a step depends on, so a run ends
in the same bytes with extras and without.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from cdm_cli.jobs.training_files import Metrics
from cdm_cli.options import Report


class Extra(Protocol):
    """Something that is done every so many steps (0: never), and after the last one."""

    @property
    def every(self) -> int:
        """Steps from one time to the next."""
        ...

    def missing(self, step: int) -> bool:
        """Whether nothing is left of this step's turn; asked in the first process only."""
        ...

    def __call__(self, step: int, report: Report, metrics: Metrics | None) -> None:
        """Take the turn of a step, in every process; metrics are there in the first one.

        Leaves nothing behind where the run is asked to stop: the turn is taken on resume.
        """
        ...


def due(extra: Extra, step: int, last: int) -> bool:
    """Say whether it is the extra's turn after a step of a run that ends with step `last`."""
    return extra.every > 0 and step > 0 and (step % extra.every == 0 or step == last)


class Noted:
    """The report of an extra: what it counts becomes the note of the bar that is there."""

    def __init__(self, report: Report, note: Callable[[str], None]) -> None:
        self._report, self._note = report, note

    def say(self, line: str) -> None:
        """Tell one line."""
        self._report.say(line)

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Generator[Callable[[int, str], None]]:
        """Count in the note."""
        done = 0

        def advance(count: int, note: str) -> None:
            nonlocal done
            done += count
            self._note(f"{what} {done}/{total} {unit}")

        yield advance
