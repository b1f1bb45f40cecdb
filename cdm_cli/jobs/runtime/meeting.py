"""How the processes of a job meet: each says in a store of the first one that it is there.

torch would wait for a process that never comes, or that died since, for minutes without a word.
Here each tells whom it waits for; a process that was there and gives no sign of life any more
ends the wait, and so do two processes of one rank or of other sizes of the job.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import TypeVar

from torch.distributed import (
    DistError,
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from cdm_cli.errors import CdmError, MismatchError, UsageError
from cdm_cli.jobs.runtime.watch import Say, Watch

T = TypeVar("T")

ANSWER = 2.0  # seconds for an answer, before it is looked whether the first process has ended
HERE, MET, DIFFER = "here", "met", "differ"


def meet(
    rank: int, size: int, address: str, patience: timedelta, say: Say, number: int = 0
) -> Store:
    """Wait until all processes are there; return the store that they share, by which they connect.

    rank: this process among size > 1. address: HOST:PORT of the first, which opens the store, or
    of torchrun's own. say: told of whom this process waits for. number: of the times that they met
    there before, in earlier jobs of the same processes. Raises StoppedError where one does
    not come within `patience` or ends meanwhile, MismatchError where two say they are one rank or
    that the job is of other sizes, and UsageError for a port that is taken.
    """
    watch = Watch(rank, size, address, patience.total_seconds(), say)
    try:
        store = PrefixStore(_name_meeting(number), _open_store(watch, patience))
        _ask(watch, lambda: _arrive(store, watch))
        for word in (HERE, MET):  # who was there when the last one came may have ended since
            _wait_for_all(store, watch, word)
    except DistError as error:
        raise watch.make_error([0], f"ended: {error}") from None
    finally:
        watch.close()
    return store


def _open_store(watch: Watch, patience: timedelta) -> Store:
    """Open the store in the first process, unless torchrun has one; reach it from the others."""
    for _ in watch.looks():
        if not (why := watch.reach_first()):
            break
        watch.wait([0], f": {why.strerror or why}")

    def join() -> Store:
        return TCPStore(
            watch.host, watch.port, watch.size, watch.opens, patience,
            wait_for_workers=False, multi_tenant=True,
            master_listen_fd=_listen(watch) if watch.opens else None,
        )  # fmt: skip

    try:
        return _ask(watch, join)
    except DistError as error:
        if watch.opens and "EADDRINUSE" in str(error):
            raise UsageError(
                f"port {watch.port} of this host is taken: by RANK=0 of a job, or another program",
                kept="nothing was computed",
                next="another MASTER_PORT for all processes, or end that one",
            ) from None
        raise watch.make_error([0], f"could not be reached: {error}") from None


def _listen(watch: Watch) -> int | None:
    """Return a socket for the store to listen on, if others reach it by an address of IPv4.

    On one of its own torch takes both families, and before it answers anybody asks a name server
    who each connection is from, as an address of IPv6 that no hosts file has: a tenth of a second
    or many for each, also for what is no process of a job. None: torch finds one, or one to share.
    """
    with suppress(ValueError, OSError):
        if ip_address(watch.host).version == 4:
            return socket.create_server(("", watch.port), backlog=socket.SOMAXCONN).detach()
    return None


def _name_meeting(number: int) -> str:
    """Return what the keys of a meeting begin with: one store serves all jobs of its processes."""
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    return f"cdm/{restart}/{number}" if number else f"cdm/{restart}"


def _ask(watch: Watch, question: Callable[[], T]) -> T:
    """Return an answer of the store, asked in a thread: torch waits without end for a mute one."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    while wait([answer], ANSWER).not_done:
        watch.check_first()
        watch.wait([0], ": what listens there does not answer")
    return answer.result()


def _describe(watch: Watch) -> str:
    host = socket.gethostname()
    return json.dumps({"size": watch.size, "rank": watch.rank, "host": host})


def _arrive(store: Store, watch: Watch) -> None:
    """Say that this process is there, and to all what does not fit those that were there."""
    if store.add(f"number/{watch.rank}", 1) > 1:
        store.set(DIFFER, f"several processes have RANK={watch.rank}")
    first = json.loads(store.compare_set("job", "", _describe(watch)))
    if first["size"] != watch.size:
        store.set(
            DIFFER,
            f"WORLD_SIZE is {first['size']} in rank {first['rank']} on {first['host']}, "
            f"{watch.size} in rank {watch.rank} on {socket.gethostname()}",
        )


def _wait_for_all(store: Store, watch: Watch, word: str) -> None:
    """Say the word, and give signs of life until every process has said it.

    A look takes the store three answers, of however many processes: a slow store would keep all of
    them from giving signs. Who is missing is asked for now and then.
    """
    _ask(watch, lambda: store.set(f"{word}/{watch.rank}", ""))
    seen: dict[int, tuple[int, float]] = {}  # by rank: its signs of life, and when one was new
    missing, asked = list(range(watch.size)), time.monotonic()
    for _ in watch.looks():
        watch.check_first()
        if _ask(watch, lambda: _look(store, watch, word, missing)):  # noqa: B023
            return
        if time.monotonic() - asked > watch.silence / 4:
            asked = time.monotonic()
            missing = _ask(watch, lambda: _find_missing(store, word, missing))  # noqa: B023
            if not missing:  # the last one has come since that look
                return
            gone = _find_silent(store, watch, missing, seen) if word == MET else []
            if gone:
                raise watch.make_error(gone, f"has ended: no sign of it for {watch.silence:.0f} s")
            watch.wait(missing)


def _look(store: Store, watch: Watch, word: str, missing: Sequence[int]) -> bool:
    """Give a sign of life, and return whether those that were missing have said the word."""
    store.add(f"life/{watch.rank}", 1)
    if store.check([DIFFER]):
        raise _differ(store.get(DIFFER).decode())
    return store.check([f"{word}/{rank}" for rank in missing])


def _find_missing(store: Store, word: str, ranks: list[int]) -> list[int]:
    """Return those of the ranks that have not said a word, asking for halves of them."""
    if store.check([f"{word}/{rank}" for rank in ranks]):
        return []
    if len(ranks) == 1:
        return ranks
    halves = ranks[: len(ranks) // 2], ranks[len(ranks) // 2 :]
    return [rank for half in halves for rank in _find_missing(store, word, half)]


def _find_silent(
    store: Store, watch: Watch, ranks: Sequence[int], seen: dict[int, tuple[int, float]]
) -> list[int]:
    """Return those of the ranks that have given no new sign of life for too long."""
    now = time.monotonic()
    for rank in ranks:
        signs = store.add(f"life/{rank}", 0)
        if rank not in seen or seen[rank][0] != signs:
            seen[rank] = signs, now
    return [rank for rank in ranks if now - seen[rank][1] > watch.silence]


def _differ(what: str) -> CdmError:
    return MismatchError(
        what,
        kept="nothing was computed",
        next="start all processes again: RANK from 0 to WORLD_SIZE - 1, each once",
    )
