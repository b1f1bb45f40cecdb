"""What the time of a command went to until its first result, which -v tells.

Parts are measured where they are; each is without the parts that begin within it. What other
threads do meanwhile costs no time.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_spent: dict[str, float] = {}
_inside: list[float] = []  # seconds of finished parts, for each part that is open
_tell: list[Callable[[str], object]] = []


def _find_process_start() -> float:
    """Return when this process began, as time.monotonic() counts; now, where nothing tells that."""
    now = time.monotonic()
    with suppress(OSError, ValueError, AttributeError):
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        since = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return now - max(0.0, since)
    return now


def tell_by(say: Callable[[str], object]) -> None:
    """Have the line told by say, once there is a first result."""
    _tell[:] = [say]


@contextmanager
def measure_command() -> Generator[None]:
    """Measure the parts of one command while entered; what another one left is forgotten.

    What came before, since the process began, is "command line": Python, and our flags.
    """
    _forget()
    _spent["command line"] = time.monotonic() - _find_process_start()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    _tell.clear()
    _spent.clear()


@contextmanager
def measure_part(what: str) -> Generator[None]:
    """Count the seconds while entered as those of a part, in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    start = time.monotonic()
    _inside.append(0.0)
    try:
        yield
    finally:
        took = time.monotonic() - start
        _spent[what] = _spent.get(what, 0.0) + took - _inside.pop()
        if _inside:
            _inside[-1] += took


@contextmanager
def measure_imports() -> Generator[None]:
    """Count "imports"; meanwhile nothing is searched for garbage, nor what they bring afterwards.

    A fifth of the import of torch would be such searches, of modules that stay.
    """
    fresh, enabled = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        with measure_part("imports"):
            yield
    finally:
        if enabled:
            gc.enable()
        if fresh and "torch" in sys.modules:
            gc.freeze()


def measure_first(what: str, items: Iterator[T]) -> Iterator[T]:
    """Yield what items yield; making the first of them is a part."""
    with measure_part(what):
        first = list(islice(items, 1))
    while first:
        yield first.pop()  # which is held no longer than the others
    yield from items


def tell_first_result(wait: Callable[[], object] = lambda: None) -> None:
    """Tell the line once, where `tell_by` asked for it. wait: ends when the device is done."""
    if _tell:
        wait()
        _tell.pop()(compose_line(_spent, time.monotonic() - _find_process_start()))
        _spent.clear()


def compose_line(spent: dict[str, float], whole: float) -> str:
    """Return the line, as "ready after 8.1 s: imports 4.0, weights 0.5, the rest 3.6"; seconds."""
    parts = {**spent, "the rest": max(0.0, whole - sum(spent.values()))}
    listed = ", ".join(f"{what} {seconds:.1f}" for what, seconds in parts.items())
    return f"ready after {whole:.1f} s: {listed}"
