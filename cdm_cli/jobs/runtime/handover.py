"""What processes of ours are started with, in a file in memory that each of them inherits.

multiprocessing writes it into a pipe whose other end it holds open itself: more than a pipe holds
(64 KiB) would wait without end for a process that is killed before it reads.
"""

import mmap
import os
import pickle
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import reduction
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

from cdm_cli.signals import hold_back_signals

T = TypeVar("T")
MAIN = "__main__"
_swapping = threading.RLock()  # two at once would put back each other's stand-in


class Handover(Generic[T]):
    """A picklable value for processes to be spawned, which are told its file descriptor alone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self) -> T:
        """Return the value, each time and in each process another object."""
        with mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) as content:
            return pickle.loads(content)

    def refers_to(self, module: str) -> bool:
        """Whether the name of a module stands anywhere in the value: it may take it to load it."""
        with mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) as content:
            return content.find(module.encode()) >= 0

    def __reduce__(self) -> tuple[Any, ...]:
        return self._inherit, (reduction.DupFd(self._fd),)

    @classmethod
    def _inherit(cls, passed: Any) -> Self:
        return cls(passed.detach())


@contextmanager
def hand_over(value: T) -> Generator[Handover[T]]:
    """Hold value for processes that are spawned while this is entered."""
    with os.fdopen(os.memfd_create("cdm"), "wb") as file:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        yield Handover(file.fileno())


@contextmanager
def start_processes(handed: Handover[Any]) -> Generator[None]:
    """Spawn processes while entered: they hear no signal yet, and do not run the caller's program.

    multiprocessing has each of them run the file of the main program again, to find what is defined
    there. A program on standard input has none, and one without `if __name__ == "__main__"` would
    do all of its work once more; so it runs only where what is handed over refers to it. Another
    thread does not find the main program meanwhile, as to pickle what is defined there.
    """
    with _swapping, hold_back_signals():
        main = sys.modules[MAIN]
        if not handed.refers_to(MAIN):
            sys.modules[MAIN] = ModuleType(MAIN)
        try:
            yield
        finally:
            sys.modules[MAIN] = main
