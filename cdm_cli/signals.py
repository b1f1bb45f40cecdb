"""Signals that ask to stop: the program ends with one line, unless a job asks to save first.

Nothing is raised: at any instruction, within an import or a callback of a library, an exception
could become another one, or be lost.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from cdm_cli.errors import StoppedError

Handler = Callable[[int, FrameType | None], object]
SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
    signal.SIGUSR1, signal.SIGUSR2,  # a scheduler's, some time before it kills
    signal.SIGALRM,  # our own, of --stop-after
)  # fmt: skip
MAY_BE_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPTED = 130
AGAIN = "the same command typed again continues or starts over"
STDERR = 2

_undo: list[Callable[[], object]] = []
_exit_codes: list[int] = []


def name_of(number: int) -> str:
    """Return what a user calls a signal."""
    names = {signal.SIGINT: "Ctrl-C", signal.SIGALRM: "--stop-after"}
    return names.get(signal.Signals(number), signal.Signals(number).name)


def take_signals(take: Handler) -> dict[int, Any]:
    """Let take have the signals, and return who had them before.

    SIGHUP, SIGUSR1 and SIGUSR2 stay ignored where they are: nohup lets a job outlive its terminal.
    """
    deaf = [number for number in MAY_BE_IGNORED if signal.getsignal(number) == signal.SIG_IGN]
    heard = [number for number in SIGNALS if number not in deaf]
    return {number: signal.signal(number, take) for number in heard}


def give_back_signals(before: dict[int, Any]) -> None:
    """Let those have the signals who had them before `take_signals`."""
    for number, handler in before.items():
        signal.signal(number, handler)


def leave_when_asked() -> None:
    """End the program at the first signal from now on, whatever it is doing: 75, Ctrl-C 130.

    A signal that is ignored stays so. While Python itself ends, all are: what is done is done.
    """
    atexit.register(_at_the_end)  # the first to be registered, so the last to run
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)


@contextmanager
def stopping_after(seconds: float | None) -> Generator[None]:
    """Ask to stop once, as a signal does, when seconds have passed; None: never.

    In the main thread alone, where Python takes signals.
    """
    clocked = seconds is not None and threading.current_thread() is threading.main_thread()
    if clocked and seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if clocked:
            signal.setitimer(signal.ITIMER_REAL, 0)


def interruptible() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, once there is someone to catch it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_by_interrupt() -> int:
    """Return the exit code after Ctrl-C, and see to it that the program ends with it.

    Where Ctrl-C met code that Python compiles from text, as an import of dataclasses does, Python
    remembers it as not handled, and at its end kills itself by SIGINT instead.
    """
    _exit_codes.append(INTERRUPTED)
    return INTERRUPTED


@contextmanager
def hold_back_signals() -> Generator[None]:
    """Let signals wait while entered; a process that is started meanwhile never hears them.

    A terminal and a scheduler send them to all processes, of which the first decides.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def undone_if_left(undo: Callable[[], object]) -> Generator[None]:
    """Call undo if a signal ends the program while entered."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


def _leave(number: int, frame: FrameType | None) -> None:
    leave(number)


def leave(number: int) -> None:
    """End the program at once, as a signal asks, with one line and what is half written undone."""
    for undo in reversed(_undo.copy()):
        with suppress(Exception):
            undo()
    stopped = number != signal.SIGINT
    what = f"stopped by {name_of(number)}" if stopped else "interrupted"
    with suppress(OSError):  # the terminal may be gone
        os.write(STDERR, f"cdm: error: {what}; {AGAIN}\n".encode())
    os._exit(StoppedError.exit_code if stopped else INTERRUPTED)


def _at_the_end() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _exit_codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(_exit_codes[-1])
