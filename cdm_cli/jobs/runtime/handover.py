"""What processes of ours are started with, in a file in memory that each of them inherits.

multiprocessing writes it into a pipe whose other end it holds open itself: more than a pipe holds
(64 KiB) would wait without end for a process that is killed before it reads.
"""

import mmap
import os
import pickle
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import reduction
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """A picklable value for processes to be spawned, which are told its file descriptor alone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self) -> T:
        """Return the value, each time and in each process another object."""
        with mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) as content:
            return pickle.loads(content)

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
