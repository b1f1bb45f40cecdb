"""Stopping between two steps: SIGTERM from a scheduler, Ctrl-C, a terminal that is gone."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

Handler = Callable[[int, FrameType | None], object]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def taken(take: Handler) -> dict[int, Any]:
    """Let take have the signals, and return who had them before.

    SIGHUP stays ignored where it is: nohup lets a job outlive its terminal.
    """
    deaf = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heard = [number for number in SIGNALS if number != signal.SIGHUP or not deaf]
    return {number: signal.signal(number, take) for number in heard}


class Stop:
    """While entered, the first signal only asks to stop; `asked` tells its name.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python
    takes no signal, nothing is ever asked.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = taken(self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
