"""How far a job is, how fast, and how long it still takes: in words that fit a width."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BETWEEN = " · "
LEAST_BAR = 8  # cells


@dataclass
class Pace:
    """Counts up to total. done: how many are done, at first those of an earlier run.

    The speed is that after the first advance, before which a network may have been compiled.
    """

    what: str
    total: int
    unit: str
    done: int = 0
    clock: Callable[[], float] = time.monotonic
    note: str = ""
    _marks: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    _last: int = 1

    def __post_init__(self) -> None:
        self._marks = [(self.clock(), self.done)]

    def advance(self, count: int, note: str) -> None:
        """Count what was done since the last call."""
        self.done, self.note = self.done + count, note
        if count:
            self._marks = [*self._marks[:2], (self.clock(), self.done)]
            self._last = count

    @property
    def rate(self) -> float:
        """How many a second; 0.0 where nothing is known yet."""
        (start, before), (end, done) = self._marks[len(self._marks) > 2], self._marks[-1]
        return (done - before) / (end - start) if end > start else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until all is done; None where no speed is known yet, and where all is done.

        They run down with the clock between two advances, but by no more than the last one took.
        """
        if not self.rate or self.done >= self.total:
            return None
        since = self.clock() - self._marks[-1][0]
        return (self.total - self.done) / self.rate - min(since, self._last / self.rate)

    @property
    def counted(self) -> str:
        """How far the job is, as "11/60 steps"."""
        return f"{self.done}/{self.total} {self.unit}"

    def make_line(self) -> str:
        """Return one line of a log: count, share, rate, time left, note."""
        parts = [f"{self.what} {self.counted}", f"{100 * self.done / max(self.total, 1):.1f} %"]
        parts += [f"{rate}/s" for rate in format_rate(self.rate)]
        parts += [f"{format_time(left)} left" for left in [self.left] if left is not None]
        return ", ".join([*parts, *([self.note] if self.note else [])])

    def fit(self, width: int) -> tuple[str, str]:
        """Return what stands before and after a bar, in at most width cells together.

        Where there is little room, the rate is left out first, and then the note from its end.
        """
        for text in self._shorten():
            if len(self.what) + 1 + len(text) + 1 + LEAST_BAR <= width:
                return self.what, text
        text = [*self._shorten()][-1]
        room = max(width - 1 - len(text), 1)
        return (self.what if len(self.what) <= room else f"{self.what[: room - 1]}…"), text

    def _shorten(self) -> Iterator[str]:
        notes = self.note.split(BETWEEN) if self.note else []
        left = [] if self.left is None else [f"{format_time(self.left)} left"]
        rate = [f"{rate}/s" for rate in format_rate(self.rate)]
        yield BETWEEN.join([self.counted, *rate, *notes, *left])
        for most in range(len(notes), 0, -1):
            yield BETWEEN.join([self.counted, *notes[:most], *left])
        if not notes:
            yield BETWEEN.join([self.counted, *left])


def format_rate(rate: float) -> list[str]:
    """Return a rate in three digits, as the one item of a list; [] for a rate of 0."""
    return [f"{rate:.3g}" if rate < 100 else f"{rate:.0f}"] if rate else []


def format_time(seconds: float) -> str:
    """Return h:mm:ss, or m:ss below one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
