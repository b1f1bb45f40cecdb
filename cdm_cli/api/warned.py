"""What a command would say on stderr, for a program: a warning of Python, or its own report's."""

import inspect
import warnings

from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.report import Report


class Warned(Silent):
    """Shows no progress; what is said is a UserWarning of the line that called this package."""

    def say(self, line: str) -> None:
        """Warn of one line."""
        warnings.warn(line, stacklevel=_count_own_frames())


def choose_report(report: Report | None) -> Report:
    """Return the caller's report, or one that warns."""
    return Warned() if report is None else report


def _count_own_frames() -> int:
    """Return how many calls within this package lead to this one; in a thread of it, all do."""
    package, count = __name__.partition(".")[0], 0
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, count = frame.f_back, count + 1
    return count
