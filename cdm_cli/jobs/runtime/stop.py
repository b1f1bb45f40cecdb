"""Stopping between two steps: a signal of a scheduler, Ctrl-C, --stop-after, a lost terminal."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from cdm_cli.signals import given_back, name_of, taken


class Stop:
    """While entered, the first signal only asks to stop; `asked` tells its name.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python
    takes no signal, nothing is ever asked. then: called at any other signal, which unlike Ctrl-C
    reaches this process alone and not those that it started.
    """

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.asked = ""
        self._then = then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = taken(self._take)
        return self

    def __exit__(self, *_: object) -> None:
        given_back(self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = name_of(number)
        if number != signal.SIGINT:
            self._then()
