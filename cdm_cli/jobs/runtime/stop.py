"""Stopping between two steps: a signal of a scheduler, Ctrl-C, --stop-after, a lost terminal."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from cdm_cli.errors import StoppedError
from cdm_cli.signals import (
    describe_stop,
    give_back_signals,
    is_program,
    leave,
    leave_at_once,
    name_of,
    take_signals,
    tell_taken,
)

OTHER = "another process"

_entered: list["Stop"] = []
_unheeded: list[int] = []  # what asked a part of this program to stop after its last look


class Stop:
    """While entered, the first signal only asks to stop; `asked` tells its name.

    It is Ctrl-C, or comes from a scheduler, --stop-after or a lost terminal. A second Ctrl-C ends
    the program at once, also while the error of the stop is on its way to whoever says it; another
    signal then asks for nothing more. Outside the main thread, where Python takes no signal,
    nothing is ever asked. then: called with each signal, which may reach this process alone and not
    those that it started; a terminal sends Ctrl-C to all of them before that. What asks after the
    last look of one part of a program asks the next part.
    """

    def __init__(self, then: Callable[[int], object] = lambda number: None) -> None:
        self.asked = ""
        self._then = then
        self._before: dict[int, Any] = {}
        self.number = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = take_signals(self._take)
            _entered.append(self)
            while _unheeded:
                self._take(_unheeded.pop(), None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self in _entered:
            _entered.remove(self)
        stops = self.number and is_program()
        if stops and kind is not None and issubclass(kind, StoppedError):
            return  # with what is saved, which a handler that leaves at once would not say
        give_back_signals(self._before)
        if stops:
            _unheeded[:] = [self.number]

    def error(
        self, kept: str, *, where: str = "", next: str = "the same command continues"
    ) -> StoppedError:
        """Return the error of a job that ends because this process, or another one, is asked to.

        where: how far it is, as " after step 3 of 9".
        """
        return StoppedError(f"{describe_stop(self.asked or OTHER)}{where}", kept=kept, next=next)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            leave(number)
        tell_taken()
        if not self.asked:
            self.asked, self.number = name_of(number), number
        self._then(number)


@contextmanager
def end_at_once() -> Generator[None]:
    """While entered, end the program at a signal, also at one that a `Stop` has taken before.

    For what asks nobody for minutes, a compiler or a first step that tries kernels, and comes
    before anything is computed that saving would keep.
    """
    with leave_at_once():
        for stop in _entered:
            if stop.number:
                leave(stop.number)
        yield
