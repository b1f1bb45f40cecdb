"""Doing something with a file of a stranger, in a child that is watched.

What the child opens, how long it takes, how much memory it needs and what it says is told to
the parent; a child that hangs or crashes is found by its exit code.
"""

import os
import pickle
import resource
import signal
import sys
import time
from dataclasses import dataclass

from tests.forking import fork

HANGS, BUG = 60, 70  # seconds of a busy machine; exit code
MEGABYTE = 2**20


@dataclass(frozen=True)
class Seen:
    """How a child behaved. told: what the action returned. opened: the paths it opened."""

    code: int
    told: object
    opened: tuple[str, ...]
    megabytes: float
    seconds: float


def watched(action) -> Seen:
    """Return how a child behaved that did action()."""
    ours, theirs = os.pipe()
    start = time.monotonic()
    pid = fork()
    if pid == 0:
        os.close(ours)
        _child(action, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        sent = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told, opened, megabytes = pickle.loads(sent) if sent else (None, (), 0.0)
    return Seen(code, told, opened, megabytes, time.monotonic() - start)


def _child(action, pipe: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HANGS)
    opened: list[str] = []
    sys.addaudithook(lambda event, args: _note(opened, event, args))
    before, code, told = _peak(), BUG, None
    try:
        told, code = action(), 0
    except BaseException as error:
        told = repr(error)[:2000]
    grown = (_peak() - before) / MEGABYTE
    try:
        with os.fdopen(pipe, "wb") as file:
            file.write(pickle.dumps((told, tuple(opened), grown)))
    finally:
        os._exit(code)


def _note(opened: list[str], event: str, args: tuple) -> None:
    if event == "open" and isinstance(args[0], (str, bytes)):
        opened.append(os.fsdecode(args[0]))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
