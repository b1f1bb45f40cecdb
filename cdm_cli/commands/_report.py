"""How a command tells what it is doing: bars on a terminal, a line now and then in a log.

Everything here goes to stderr, so that stdout holds results alone.
"""

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

import typer

from cdm_cli.commands._columns import fold
from cdm_cli.commands._progress import Pace
from cdm_cli.errors import make_printable
from cdm_cli.signals import STDERR, undo_if_left

if TYPE_CHECKING:
    from rich.progress import Progress

    from cdm_cli.report import Report

SECONDS_BETWEEN_LINES = 5.0
SHOW_CURSOR = b"\x1b[?25h\n"  # which a bar hides
Advance = Callable[[int, str], None]


def choose_report(ctx: typer.Context) -> "Report":
    """Return the Report that fits stderr: quiet (-q), a terminal's, or a log's."""
    if ctx.find_root().params.get("quiet"):
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines(sys.stderr)


class Quiet:
    """Says nothing; errors still end the command with their line."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Return a tracker that shows nothing."""
        return nullcontext(_do_nothing)


def _do_nothing(count: int, note: str) -> None:
    pass


class Lines:
    """Plain lines: `sample 12800/50000 images, 25.6 %, 143/s, 4:20 left`."""

    def __init__(
        self,
        stream: TextIO,
        seconds: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._seconds, self._clock = stream, seconds, clock
        self._depth, self._last = 0, clock()

    def say(self, line: str) -> None:
        """Write one line at once."""
        self._stream.write(make_printable(line) + "\n")
        self._stream.flush()

    @contextmanager
    def track(self, what: str, total: int, unit: str, done: int = 0) -> Generator[Advance]:
        """Count; write a line every few seconds and one at the end.

        A count within another one that is done before its first line is not told.
        """
        pace, said = Pace(what, total, unit, done, self._clock), (done, "")
        inner, told = self._depth > 0, False
        self._depth += 1
        self._last = self._last if inner else self._clock()

        def advance(count: int, note: str) -> None:
            nonlocal told
            pace.advance(count, note)
            if self._clock() - self._last >= self._seconds:
                tell()
                told = True

        def tell() -> None:
            nonlocal said
            self._last, said = self._clock(), (pace.done, pace.note)
            self.say(pace.make_line())

        try:
            yield advance
        finally:
            self._depth -= 1
        if (pace.done, pace.note) != said and (told or not inner):
            tell()


class Bars:
    """A live bar on a terminal, with count, rate, time left and the job's own note.

    A bar that is opened while another one is shown stands below it, and goes when it ends.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._shown: Progress | None = None

    def say(self, line: str) -> None:
        """Write one line above the bar."""
        for part in fold(make_printable(line), self._console.width):
            self._console.print(part, markup=False, soft_wrap=True)

    @contextmanager
    def track(self, what: str, total: int, unit: str, done: int = 0) -> Generator[Advance]:
        """Show a bar; the outermost one stays on the screen when it ends."""
        pace, outer = Pace(make_printable(what), total, unit, done), self._shown
        from cdm_cli.commands._bars import make_progress

        shown = self._shown = outer or make_progress(self._console)
        task = shown.add_task(what, total=total, completed=done, pace=pace)

        def advance(count: int, note: str) -> None:
            pace.advance(count, make_printable(note))
            shown.update(task, advance=count)

        with self._display(shown) if outer is None else nullcontext():
            try:
                yield advance
            finally:
                self._shown = outer
                if outer:
                    shown.remove_task(task)

    @contextmanager
    def _display(self, shown: "Progress") -> Generator[None]:
        with shown, undo_if_left(_show_cursor):
            yield


def _show_cursor() -> None:
    os.write(STDERR, SHOW_CURSOR)
