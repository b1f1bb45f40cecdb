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

from cdm_cli.errors import printable
from cdm_cli.signals import STDERR, undone_if_left

if TYPE_CHECKING:
    from cdm_cli.options import Report

SECONDS_BETWEEN_LINES = 5.0
SHOW_CURSOR = b"\x1b[?25h\n"  # which a bar hides
Advance = Callable[[int, str], None]


def report_of(ctx: typer.Context) -> "Report":
    """Return the Report that fits stderr: quiet (-q), a terminal's, or a log's."""
    if ctx.find_root().params.get("quiet"):
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines(sys.stderr)


class Quiet:
    """Says nothing; errors still end the command with their line."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def track(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Return a tracker that shows nothing."""
        return nullcontext(_nothing)


def _nothing(count: int, note: str) -> None:
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

    def say(self, line: str) -> None:
        """Write one line at once."""
        self._stream.write(printable(line) + "\n")
        self._stream.flush()

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Generator[Advance]:
        """Count; write a line every few seconds and one at the end."""
        start = last = self._clock()
        done = since = 0
        said = ""

        def advance(count: int, note: str) -> None:
            nonlocal done, since, last, said
            done, since, said = done + count, since + count, note
            if self._clock() - last >= self._seconds:
                last, since = self._clock(), 0
                self.say(progress_line(what, done, total, unit, last - start, note))

        yield advance
        if since:
            self.say(progress_line(what, done, total, unit, self._clock() - start, said))


def progress_line(
    what: str, done: int, total: int, unit: str, seconds: float, note: str = ""
) -> str:
    """Return one line of progress with the rate so far and the time left at that rate."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{what} {done}/{total} {unit}", f"{100 * done / max(total, 1):.1f} %"]
    if rate:
        parts.append(f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s")
    if rate and done < total:
        parts.append(f"{clock_time((total - done) / rate)} left")
    return ", ".join([*parts, note] if note else parts)


def clock_time(seconds: float) -> str:
    """Return h:mm:ss, or m:ss below one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Bars:
    """A live bar on a terminal, with count, rate, time left and the job's own note."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Write one line above the bar."""
        self._console.print(printable(line), markup=False, soft_wrap=True)

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Generator[Advance]:
        """Show a bar; it stays on the screen when it ends."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
        )
        start = time.monotonic()
        with progress, undone_if_left(_show_cursor):
            task = progress.add_task(what, total=total, note=unit)

            def advance(count: int, note: str) -> None:
                done = progress.tasks[0].completed + count
                rate = done / max(time.monotonic() - start, 1e-3)
                progress.update(task, advance=count, note=f"{unit} {rate:.3g}/s {note}")

            yield advance


def _show_cursor() -> None:
    os.write(STDERR, SHOW_CURSOR)
