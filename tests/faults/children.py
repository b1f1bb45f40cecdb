"""Running a job until a fault, in a forked child where the fault kills it.

The child of a process that has imported torch starts in a fraction of the time that a new one
takes. torch's backward pass does not survive a fork, so the process that forks never uses it:
it is another one than that of pytest (see `killer` in conftest.py).
"""

import importlib
import os
import pickle
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdm_cli.data import disk
from cdm_cli.errors import CdmError
from tests.faults.jobs import JOBS
from tests.faults.runs import settled

BUG, KILLED = 70, 137
Hook = Callable[[disk.Io], None]


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, and what it returned or its error as text."""

    code: int
    told: Any


def here(name: str, where: Path, hook: Hook) -> Ended:
    """Run a job in this process."""
    try:
        with _inside(where), settled(), disk.announce_to(hook):
            return Ended(0, JOBS[name].run())
    except CdmError as error:
        return Ended(error.exit_code, str(error))
    except Exception:
        return Ended(BUG, traceback.format_exc())


@contextmanager
def _inside(where: Path) -> Generator[None]:
    before = Path.cwd()
    os.chdir(where)
    try:
        yield
    finally:
        os.chdir(before)


def killed(name: str, where: Path, number: int, *, torn: bool) -> Ended:
    """Run a job in a forked child that dies before call `number`, or half way through it."""
    for module in JOBS[name].needs:
        importlib.import_module(f"cdm_cli.jobs.{module}")
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(theirs, "wb") as pipe:
            ended = here(name, where, dying(number, torn=torn))
            pipe.write(pickle.dumps(ended))
        os._exit(ended.code)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(code, pickle.loads(told).told if told else None)


def dying(number: int, *, torn: bool) -> Hook:
    """Return the hook that ends the process at a call; torn: once half of it is written."""

    def die(io: disk.Io) -> None:
        if torn:
            _half(io)
        os._exit(KILLED)

    return _at(number, die)


def failing(number: int, code: int) -> Hook:
    """Return the hook that makes a call fail; a write fails half way."""

    def fail(io: disk.Io) -> None:
        if io.kind == "write":
            _half(io)
        raise OSError(code, os.strerror(code))

    return _at(number, fail)


def _half(io: disk.Io) -> None:
    os.pwrite(io.fd, io.data[: len(io.data) // 2], io.offset)


def _at(number: int, act: Hook) -> Hook:
    seen = iter(range(number + 1))
    return lambda io: act(io) if next(seen, None) == number else None
