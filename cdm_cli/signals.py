"""Signals that ask to stop: the program ends with one line, unless a job asks to save first.

Nothing is raised in a program of ours: at any instruction, within an import or a callback of a
library, an exception could become another one, or be lost.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
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
HANDLED = 0.5  # seconds within which a handler has run, unless a library keeps it waiting
TAKEN = b"\0"  # no number of a signal: a handler has run since those that were heard before
MOST = 4096  # bytes
AGAIN = "the same command typed again continues or starts over"
STDERR = 2

_undo: list[Callable[[], object]] = []
_leaving = threading.RLock()  # held for good by whoever ends the program
_hearing: list[int] = []  # the pipe from which a thread hears, while there is one
_ours: list[bool] = []  # once this process is a program of ours: whether it says why it ends


def name_of(number: int) -> str:
    """Return what a user calls a signal."""
    names = {signal.SIGINT: "Ctrl-C", signal.SIGALRM: "--stop-after"}
    return names.get(signal.Signals(number), signal.Signals(number).name)


def describe_stop(by: str) -> str:
    """Return what a job says that ends because it is asked to. by: the name of what asked."""
    return f"stopped by {by}"


def take_signals(take: Handler) -> dict[int, Any]:
    """Make take the handler of SIGNALS; return by number the handlers before it.

    SIGHUP, SIGUSR1 and SIGUSR2 stay ignored where they are: nohup lets a job outlive its terminal.
    """
    deaf = [number for number in MAY_BE_IGNORED if signal.getsignal(number) == signal.SIG_IGN]
    heard = [number for number in SIGNALS if number not in deaf]
    return {number: signal.signal(number, take) for number in heard}


def give_back_signals(before: dict[int, Any]) -> None:
    """Put back the handlers that `take_signals` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def leave_when_asked(*, says: bool = True) -> None:
    """From now on, end the program at the first signal: exit code 130 for Ctrl-C, 75 for others.

    A signal that is ignored stays ignored, and all are while Python itself ends. says: whether a
    line is written; a process of several leaves that to the one that started it.
    """
    _ours[:] = [says]
    atexit.register(_ignore_at_the_end)  # the first to be registered, so the last to run
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)


def is_program() -> bool:
    """Whether this process runs one command of ours and ends, unlike a notebook."""
    return bool(_ours)


@contextmanager
def hear_within_calls() -> Generator[None]:
    """While entered, a signal ends the program also while the main thread is within a library.

    Python's own handlers wait until such a call returns, minutes if it waits for another process. A
    thread does what they would, where that is to leave, once they had their time and none of them
    ran. A signal that a job took is that job's, also after it gave the handlers back.
    """
    if not _ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    _hearing.append(told)
    threading.Thread(target=_hear, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        _hearing.remove(told)
        signal.set_wakeup_fd(before)
        os.close(told)  # which ends the thread


def tell_taken() -> None:
    """Say, in a handler that does not end the program, that it takes what was heard so far."""
    for pipe in _hearing:
        with suppress(BlockingIOError):  # full: of signals, one of which is the last
            os.write(pipe, TAKEN)


def _hear(pipe: int) -> None:
    while heard := os.read(pipe, MOST):
        time.sleep(HANDLED)
        while select.select([pipe], [], [], 0)[0] and (more := os.read(pipe, MOST)):
            heard += more
        left = heard.rpartition(TAKEN)[2]
        if left and signal.getsignal(min(left)) is _leave:
            leave(min(left))  # as Python would, which begins with the lowest: Ctrl-C, not SIGTERM
    os.close(pipe)


@contextmanager
def leave_at_once() -> Generator[None]:
    """While entered, the first signal ends the program, whatever a job has asked for."""
    main = threading.current_thread() is threading.main_thread()
    before = take_signals(_leave) if main else {}
    try:
        yield
    finally:
        give_back_signals(before)


@contextmanager
def stop_after(seconds: float | None) -> Generator[None]:
    """Send this process SIGALRM, which asks it to stop, once seconds have passed; None: never.

    It works in the main thread alone, where Python takes signals.
    """
    clocked = seconds is not None and threading.current_thread() is threading.main_thread()
    if clocked and seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if clocked:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def hold_back_signals() -> Generator[None]:
    """Block signals while entered; they arrive afterwards. A process spawned meanwhile hears none.

    A terminal and a scheduler send signals to all processes of a job, of which the first decides.
    """
    _start_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start what removes the semaphores of spawned processes, if a program is killed.

    Python starts it with the first process, which it lets hear Ctrl-C and SIGTERM then; and it
    warns of what it removes after the last line of a program that was asked to end.
    """
    from multiprocessing import resource_tracker

    quietly = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(quietly)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quietly)


def release_signals() -> None:
    """Hear the signals that waited since this process was started, and those to come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def undo_if_left(undo: Callable[[], object]) -> Generator[None]:
    """Call undo if a signal ends the program while this is entered."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextmanager
def begin_unless_left() -> Generator[None]:
    """Let no other thread end the program while something is made that `undo_if_left` undoes.

    Where one ends it already this waits: what would be made nobody would undo.
    """
    with _leaving:
        yield


def _leave(number: int, frame: FrameType | None) -> None:
    leave(number)


def leave(number: int) -> None:
    """End the program at once: call what undoes half-written files, write one line, and exit.

    The exit code is 130 for Ctrl-C, 75 for other signals. Raises KeyboardInterrupt for Ctrl-C where
    the program is not ours, in a notebook for instance.
    """
    if number == signal.SIGINT and not _ours:
        raise KeyboardInterrupt
    _leaving.acquire()
    for undo in reversed(_undo.copy()):
        with suppress(Exception):
            undo()
    stopped = number != signal.SIGINT
    what = describe_stop(name_of(number)) if stopped else "interrupted"
    with suppress(OSError):  # the terminal may be gone
        if _ours != [False]:
            os.write(STDERR, f"cdm: error: {what}; {AGAIN}\n".encode())
    os._exit(StoppedError.exit_code if stopped else INTERRUPTED)


def _ignore_at_the_end() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
