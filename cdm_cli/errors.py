"""Every error a user can cause, and the exit code it ends with.

    CdmError            1   (base class; never raised itself)
    ├── UsageError      2   a flag or argument that cannot mean anything
    ├── BadInputError  65   a file is damaged, or breaks the rules of its format
    │   ├── UnsafeInputError  a file that would make us read or write elsewhere, or too much
    │   └── NotFiniteError    a network gave numbers that are none, which bytes would hide
    ├── MissingError   66   an input does not exist
    ├── MemoryFloorError 69 not enough memory even for the smallest unit of work
    ├── WouldOverwriteError 73  an output exists and was made by another command
    ├── DiskError      74   the disk is full or failed
    ├── StoppedError   75   stopped or locked; the same command continues
    ├── DivergedError  76   training ran into non-finite numbers
    └── MismatchError  78   two files do not fit each other

An error is one line: what is wrong and where, what was expected, what became of the
data, and what to type next.
"""

import errno
import shlex
from collections.abc import Iterator, Sequence
from typing import ClassVar

MEMORY_WORDS = (  # of CUDA, cuBLAS, torch, the C and C++ libraries, threads, the loader, oneDNN
    "out of memory", "not enough memory", "alloc_failed", "can't allocate memory",
    "cannot allocate memory", "bad_alloc", "can't start new thread", "failed to map segment",
    "could not create a primitive",
)  # fmt: skip
PROPOSED = 5  # names beside the first
LONGEST = 3000  # characters of a part of the line: damaged files can hold names of megabytes


class CdmError(Exception):
    """What a user can cause: one line, one exit code.

    what: the fault, naming the file or flag. kept: what is untouched, or saved.
    next: the command or change to try; where none is known, the `advice` of the kind.
    """

    exit_code = 1
    advice: ClassVar = "rerun with --debug"

    def __init__(self, what: str, *, kept: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what, self.kept, self.next = what, kept, next or self.advice

    def __str__(self) -> str:
        """Return the line that a user reads, control characters escaped."""
        parts = [self.what, self.kept, f"Next: {self.next}" if self.next else ""]
        line = " — ".join(_cut(part) for part in parts if part)
        return make_printable(line)


def make_printable(text: str) -> str:
    """Return text as one line that cannot steer a terminal, control characters escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def quote(word: object) -> str:
    """Return a path or a name as one word of a shell, for the command that an error advises."""
    return shlex.quote(str(word))


def propose(flag: str, names: Sequence[object], what: str) -> str:
    """Return the first of some things as what to type, and what else there is of the kind.

    flag: "--model", or "name" where an argument takes it. what: "stage that fits low.h5".
    """
    first, *others = map(quote, names)
    if not others:
        return f"{flag} {first}: the only {what}"
    return f"{flag} {first}, or another {what}: {', '.join(others[:PROPOSED])}"


def _cut(part: str) -> str:
    return part if len(part) <= LONGEST else f"{part[: LONGEST // 2]} … {part[-LONGEST // 2 :]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, of whatever library, says that memory does not suffice.

    Libraries that cannot be loaded for lack of it say so too, and some wrap who said it first.
    """
    return any(_tells_of_memory(each) for each in _list_causes(error))


def _tells_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    words = str(error).lower()
    known = isinstance(error, (RuntimeError, ImportError, OSError))
    return known and any(word in words for word in MEMORY_WORDS)


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, at most ten."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


class UsageError(CdmError):
    """A flag or argument that cannot mean anything."""

    exit_code = 2
    advice: ClassVar = "cdm help, or help() in Python, says what it takes"


class BadInputError(CdmError):
    """A file is damaged, or breaks the rules of its format."""

    exit_code = 65
    advice: ClassVar = "copy or make the file again, or take another"


class UnsafeInputError(BadInputError):
    """A file that would make us read or write elsewhere, or too much."""

    advice: ClassVar = "take it from who made it, or another one"


class NotFiniteError(BadInputError):
    """A network gave numbers that are not finite, which bytes would hide: its images were black."""

    advice: ClassVar = "other --weights, or --precision fp32"


class MissingError(CdmError):
    """An input does not exist."""

    exit_code = 66
    advice: ClassVar = "make it, or name another"


class MemoryFloorError(CdmError):
    """Not enough memory even for the smallest unit of work."""

    exit_code = 69
    advice: ClassVar = "less at once, or a machine with more memory"


class WouldOverwriteError(CdmError):
    """An output exists and was made by another command."""

    exit_code = 73
    advice: ClassVar = "another -o"


class DiskError(CdmError):
    """The disk is full or failed."""

    exit_code = 74
    advice: ClassVar = "check the disk, and who may read and write there"


class StoppedError(CdmError):
    """Stopped or locked; the same command continues."""

    exit_code = 75
    advice: ClassVar = "the same command continues"


class DivergedError(CdmError):
    """Training ran into non-finite numbers."""

    exit_code = 76
    advice: ClassVar = "a lower --set training.lr"


class MismatchError(CdmError):
    """Two files do not fit each other."""

    exit_code = 78
    advice: ClassVar = "take two that belong together"
