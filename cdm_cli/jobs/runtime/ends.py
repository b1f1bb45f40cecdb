"""How the processes of a job ended: what each said last, and what of it explains the end best."""

import contextlib
import signal
from collections.abc import Callable
from typing import Any

from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.stop import OTHER, Stop
from cdm_cli.report import Report
from cdm_cli.signals import INTERRUPTED, describe_stop, name_of

Message = tuple[str, Any]

KEPT = "what was saved so far is complete"
AGAIN = "run the same command again, it continues there"


class Ends:
    """Gathers the messages of all processes: how each ended, and the progress bars of the first."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.ends: dict[int, Message] = {}
        self._bars: list[tuple[contextlib.ExitStack, Callable[[int, str], None]]] = []

    def hear(self, rank: int, kind: str, content: Any) -> None:
        """Take one message of a process."""
        if kind in ("result", "error", "interrupted", "died", "ended"):
            self.ends.setdefault(rank, (kind, content))
        elif rank:
            return
        elif kind == "say":
            self.report.say(content)
        elif kind == "track":
            bar = contextlib.ExitStack()
            self._bars.append((bar, bar.enter_context(self.report.track(*content))))
        elif kind == "advance":
            self._bars[-1][1](*content)
        elif kind == "end":
            self._bars.pop()[0].close()

    @property
    def failed(self) -> bool:
        """Whether some process ended badly."""
        return any(kind != "result" for kind, _ in self.ends.values())

    def close(self) -> None:
        """End the bars, whatever happened."""
        while self._bars:
            self._bars.pop()[0].close()


def name_end(exit_code: int | None, *, asked: bool) -> str:
    """Return how a process ended that has said nothing."""
    if exit_code == INTERRUPTED:
        return "interrupted"
    return "ended" if asked and exit_code == StoppedError.exit_code else "died"


def conclude(ends: dict[int, Message], size: int, stop: Stop) -> Any:
    """Return the first process's result, or raise what explains the end of the job best.

    Of a stop that is what a process says of it that had something to save: others left at once, or
    have lost touch with one that did. Where none had, Ctrl-C is what it is to a single process.
    """
    for rank, (kind, content) in sorted(ends.items()):
        if kind == "died":
            stopped = content == StoppedError.exit_code  # at once: it had nothing to save
            raise StoppedError(
                f"process {rank} of {size} "
                + ("was stopped" if stopped else f"died{name_cause(content)}"),
                kept=KEPT,
                next=AGAIN,
            )
    errors = [content for kind, content in ends.values() if kind == "error"]
    causes = [error for error in errors if error[0] is not StoppedError]
    _raise_first(causes or [_name_asker(error, stop) for error in errors if _is_stop(error)])
    kinds = {kind for kind, _ in ends.values()}
    if "interrupted" in kinds:
        raise KeyboardInterrupt
    if stop.asked and kinds != {"result"}:
        if stop.asked == name_of(signal.SIGINT):
            raise KeyboardInterrupt
        raise stop.error(KEPT, next=AGAIN)
    _raise_first(errors)
    missing = [str(rank) for rank in range(size) if rank not in ends]
    if missing:
        raise StoppedError(
            f"process {', '.join(missing)} of {size} did not end", next="run the command again"
        )
    return ends[0][1]


def _is_stop(error: Any) -> bool:
    """Whether a process ended because it was asked to, and not because another one ended."""
    return error[1].startswith(describe_stop(""))


def _name_asker(error: Any, stop: Stop) -> Any:
    """Return the error of a stop by what asked the parent, which passes on SIGTERM for all."""
    kind, what, kept, then = error
    for name in (name_of(signal.SIGTERM), OTHER) if stop.asked else ():
        if what.startswith(describe_stop(name)):
            what = describe_stop(stop.asked) + what.removeprefix(describe_stop(name))
    return kind, what, kept, then


def _raise_first(errors: list[Any]) -> None:
    """Raise the error of the process that ended first, if any."""
    for kind, what, kept, then in errors:
        raise kind(what, kept=kept, next=then)


def name_cause(exit_code: int | None) -> str:
    """Return what an exit code tells, as ": killed by SIGKILL (out of memory?)"."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f": killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f" with exit code {exit_code}; its own message is above"
