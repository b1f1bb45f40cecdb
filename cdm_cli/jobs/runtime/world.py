"""Several processes on one job: who we are, and what the processes tell each other.

torchrun and SLURM say so in the environment; `--gpus N` starts the processes itself
(`jobs/runtime/launch.py`). Numbers travel between devices (NCCL), decisions between processors
(gloo), so that a processor never waits for its device to take part in one.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.errors import StoppedError, UsageError
from cdm_cli.jobs.runtime.lifelines import Lifelines
from cdm_cli.jobs.runtime.meeting import meet
from cdm_cli.jobs.runtime.ordered import sum_in_order
from cdm_cli.jobs.runtime.ranks import read_number, read_ranks

T = TypeVar("T")

HANG_TIMEOUT = timedelta(seconds=300)
BUCKET = 16 * 2**20  # numbers that travel together
_stores: dict[str, list[Any]] = {}
"""The stores of the jobs of this process by their address, held: others may not have left them."""


@dataclass(frozen=True)
class World:
    """This process among all of a job; the default is a job of one process.

    facts: what it was started to do, which must be the same in all of them. lost: what was said
    when another one could not be reached any more. lines: to the others, once connected.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None  # a gloo group, where size > 1 and connected
    address: str = ""  # HOST:PORT of the first process, if one of ours started all
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    lost: list[str] = field(default_factory=list[str], compare=False)
    lines: Lifelines | None = field(default=None, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def find_ended(self) -> list[int]:
        """Return the ranks of other processes that have ended, as far as this one can know."""
        return self.lines.find_ended() if self.lines else []

    def agree(self, flag: bool) -> bool:
        """Return whether the flag is true in every process."""
        if self.size == 1:
            return flag
        told = torch.tensor(int(flag))
        self._reach(lambda: dist.all_reduce(told, op=dist.ReduceOp.MIN, group=self.control))
        return bool(told.item())

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in some process."""
        return not self.agree(not flag)

    def gather(self, value: T) -> list[T]:
        """Return what every process gave, in the order of ranks; it must be picklable."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        self._reach(lambda: dist.all_gather_object(told, value, group=self.control))
        return told

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.agree(True)

    def sum_(self, tensors: Sequence[Tensor], scalar: Tensor, *, in_order: bool = False) -> None:
        """Add up float32 tensors and a scalar over all processes, in place and in buckets.

        in_order: in that of `sum_in_order`; the number of processes is a power of two.
        """
        if self.size == 1:
            return
        rest = [scalar, *tensors]
        while rest:
            count, numbers = 0, 0
            while count < len(rest) and (not count or numbers + rest[count].numel() <= BUCKET):
                numbers += rest[count].numel()
                count += 1
            bucket, rest = rest[:count], rest[count:]
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            if in_order:
                flat = self._exchange_in_order(flat)
            else:
                self._reach(lambda flat=flat: dist.all_reduce(flat))
            parts = flat[: sum(t.numel() for t in bucket)].split([t.numel() for t in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _exchange_in_order(self, flat: Tensor) -> Tensor:
        """Return the sums over all processes: each adds up a share of the numbers, for all."""
        flat = F.pad(flat, (0, -len(flat) % self.size))
        theirs = torch.empty_like(flat)
        self._reach(lambda: dist.all_to_all_single(theirs, flat))
        (mine,) = sum_in_order(((part,) for part in theirs.chunk(self.size)), self.size)
        assert mine is not None
        self._reach(lambda: dist.all_gather(list(flat.chunk(self.size)), mine))
        return flat

    def _reach(self, call: Any) -> None:
        """Make one exchange; a process that is gone or hangs ends the job with a named cause."""
        try:
            call()
        except RuntimeError as error:
            words = _take_first_line(error)
            self.lost.append(words)
            raise StoppedError(
                f"process {self.rank} of {self.size} lost touch with another one: {words}",
                kept="what was saved so far is complete",
                next="look at that process's own message, then run the same command again",
            ) from None


def read_world() -> World:
    """Return who torchrun or srun says we are, without connecting; a world of one otherwise."""
    return World(*read_ranks())


def connect(world: World, device: str, say: Callable[[str], object]) -> World:
    """Join the other processes, which exchange numbers on "cuda" or "cpu"; alone, do nothing.

    say: told for whom this process waits. Raises what `meet` raises, StoppedError where the process
    is in another group already, and UsageError where the address of the first is not known.
    """
    if world.size == 1:
        return world
    if dist.is_initialized():
        raise StoppedError(
            f"process {world.rank} of {world.size}: torch.distributed is in use here already, by "
            "this program itself or by a job that lost another process",
            kept="nothing was computed",
            next="start all processes again, this job first",
        )
    address = world.address or _find_address()
    there = _stores.setdefault(address, [])
    store = meet(world.rank, world.size, address, HANG_TIMEOUT, say, len(there))
    there.append(store)
    backend = "nccl" if device == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=HANG_TIMEOUT
        )
        control = dist.new_group(backend="gloo", timeout=HANG_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        words = _take_first_line(error)
        raise StoppedError(
            f"process {world.rank} of {world.size} did not meet the others: {words}",
            kept="nothing was computed",
            next="look at their own messages; MASTER_ADDR and MASTER_PORT must lead to the first",
        ) from None
    return _hold_lines(replace(world, control=control), address)


def _hold_lines(world: World, address: str) -> World:
    """Connect to all other processes, to know when one ends, as far as the network allows it."""
    lines = None
    with suppress(OSError):
        lines = Lifelines(address)
    for rank, place in enumerate(world.gather(lines.place if lines else None)):
        if not lines or not place or rank == world.rank or not lines.may_reach(place):
            continue
        if not lines.connect(rank, place):
            break  # each of the others would take as long to be tried
    return replace(world, lines=lines)


def _take_first_line(error: Exception) -> str:
    """Return what a library says, without the place in its source and what it advises."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).partition(" This is typically")[0]


def leave_world(world: World) -> None:
    """Leave the process group, unless a process is lost: NCCL would wait for it."""
    if world.lines is not None:
        world.lines.close()
    if world.size > 1 and dist.is_initialized() and not world.lost:
        dist.destroy_process_group()


def _find_address() -> str:
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    host = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if host is None:
        raise UsageError(
            "several processes, but MASTER_ADDR and MASTER_PORT do not say where the first one is",
            next="export MASTER_ADDR=host MASTER_PORT=29500, or use --gpus N",
        )
    port = 20_000 + read_number("SLURM_JOB_ID", 0) % 20_000
    return f"{host}:{port}"
