"""All processes of a job do the same thing, or all of them end and say what differs, and where.

Several hosts may hold other files under the same names, or other versions of cdm. Nothing of
that shows in the numbers that processes exchange: they would train one model on two data sets.
So every job decides what it is about to do within `agree_on`, before anything is computed.
"""

import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from cdm_cli.__version__ import __version__
from cdm_cli.data import disk, durable
from cdm_cli.errors import CdmError, MismatchError
from cdm_cli.jobs.runtime.differences import as_json, find_first_difference, show_value
from cdm_cli.jobs.runtime.world import World

T = TypeVar("T")
Facts = Mapping[str, Any]

SAME = "the same command, files and versions on every host"
SHARED = (
    "-o in a directory that all hosts share; where there is none, sample and upsample on each host "
    "with --part I/N, then cdm merge"
)
LOOKS, LOOK = 50, 0.1  # seconds between looks for a file that another host has just made


class Word(NamedTuple):
    """The message of one process: its host, the facts it decided, or the error that stopped it."""

    host: str
    facts: dict[str, Any]
    error: CdmError | None


def describe_task(job: Callable[..., Any], options: Any) -> dict[str, Any]:
    """Return what a process was started to do: command, options, versions of cdm and torch."""
    return {
        "command": job.__module__.rpartition(".")[2],
        "version of cdm": __version__,
        "version of torch": torch.__version__,
        "option": json.loads(json.dumps(asdict(options), default=str)),
    }


def agree_on(
    world: World,
    decide: Callable[[], T],
    facts: Callable[[T], Facts] = lambda decided: {},
    *,
    next: str = SAME,
) -> T:
    """Decide in every process, and return the decision where all came to the same facts.

    facts: what of a decision must be equal everywhere, plain values only. Every process raises:
    its own error where it could not decide, that of another one with the name of its host where
    only that could not, else MismatchError naming the first difference. `next` is its advice.
    """
    if world.size == 1:
        return decide()
    decided, error = _try(lambda: _list_facts(decide, facts))
    words: list[Word] = world.gather(_speak(decided, error))
    if error is not None:
        raise error
    assert decided is not None
    _check_none_failed(words, world)
    _check_no_difference(words, next)
    return decided[0]


def _try(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error


def _list_facts(decide: Callable[[], T], facts: Callable[[T], Facts]) -> tuple[T, dict[str, Any]]:
    decided = decide()
    return decided, as_json(dict(facts(decided)))


def _speak(decided: tuple[Any, dict[str, Any]] | None, error: Exception | None) -> Word:
    known = error if isinstance(error, CdmError) or error is None else CdmError(repr(error))
    return Word(socket.gethostname(), decided[1] if decided else {}, known)


def _check_none_failed(words: list[Word], world: World) -> None:
    for rank, word in enumerate(words):
        if word.error is not None:
            what, error = word.error.what, word.error
            told = what if world.address else f"{_name_place(rank, words)}: {what}"  # of one host
            raise type(error)(told, kept=error.kept, next=error.next)


def _check_no_difference(words: list[Word], next: str) -> None:
    for rank, word in enumerate(words):
        found = find_first_difference(words[0].facts, word.facts)
        if found:
            raise MismatchError(
                f"the processes of this job differ: {found.name} is {show_value(found.there)} in "
                f"{_name_place(0, words)}, {show_value(found.here)} in {_name_place(rank, words)}",
                kept="nothing was computed",
                next=next,
            )


def _name_place(rank: int, words: list[Word]) -> str:
    return f"rank {rank} on {words[rank].host}"


def check_shared(world: World, out: Path) -> None:
    """Raise MismatchError in every process unless all of them see the directory of `out`.

    The first process puts an empty file there for a moment, under a name that nobody knew.
    """
    if world.size == 1 or world.address:  # alone, or started by one process on this host
        return
    token = world.gather(secrets.token_hex(8))[0]
    mark = out.parent / f".{out.name}.{token}{durable.PARTIAL}"
    try:
        agree_on(world, lambda: durable.write_file_atomically(mark, b"") if world.leads else None)
        agree_on(world, lambda: _check_seen(mark, out))
    finally:
        if world.leads:
            disk.unlink(mark)


def _check_seen(mark: Path, out: Path) -> None:
    for _ in range(LOOKS):
        if mark.exists():
            return
        time.sleep(LOOK)
    raise MismatchError(
        f"-o {out}: this process does not see the directory of the first one: their hosts share "
        "no file system, or the command was typed in another directory",
        kept="nothing was computed",
        next=SHARED,
    )
