"""The patience of a process that waits for others: it tells for whom, and gives up in time."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from cdm_cli.errors import StoppedError, UsageError
from cdm_cli.jobs.runtime.lifelines import find_end, reach

Say = Callable[[str], object]

SHORTEST, LONGEST = 0.02, 0.5  # seconds between two looks
TELL, AGAIN = 10.0, 60.0  # seconds of waiting until it is told, and told again
SILENCE = 20.0  # seconds without a sign of life of a process that was there: it has ended


class Watch:
    """Counts the seconds of a wait for others, tells for whom it is, and ends it.

    rank, size: of this process and of its job; opens: whether it opens the store that all meet in.
    """

    def __init__(self, rank: int, size: int, address: str, patience: float, say: Say) -> None:
        self.rank, self.size = rank, size
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UsageError(f"{address}: expected a port in 1..65535", next="another MASTER_PORT")
        self.host, self.port = host, int(port)
        elastic = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self.opens = rank == 0 and not elastic  # torchrun has a store of its own
        self._patience, self._say = patience, say
        self.silence = SILENCE
        self._since = time.monotonic()
        self._line: socket.socket | None = None
        self._told = self._since + TELL

    def looks(self) -> Iterator[None]:
        """Yield before each look, sleeping between two of them."""
        pause = SHORTEST
        while True:
            yield
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST)

    def wait(self, missing: Sequence[int], why: str = "") -> None:
        """Tell now and then who is missing. Raises StoppedError where patience is at its end."""
        now = time.monotonic()
        if now - self._since > self._patience:
            raise self.make_error(missing, f"did not come within {self._patience:.0f} s{why}")
        if now > self._told:
            left = self._patience - (now - self._since)
            self._say(
                f"rank {self.rank} of {self.size} waits for {self._name(missing)}{why}; "
                f"at most {left:.0f} s more"
            )
            self._told = now + AGAIN

    def make_error(self, ranks: Sequence[int], what: str) -> StoppedError:
        """Return the error of a process that has waited for others in vain."""
        return StoppedError(
            f"rank {self.rank} of {self.size} did not meet the others: {self._name(ranks)} {what}",
            kept="nothing was computed",
            next="look at the messages of those, then start all of them again; MASTER_ADDR and "
            "MASTER_PORT must lead to rank 0",
        )

    def _name(self, ranks: Sequence[int]) -> str:
        shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
        place = f" at {self.host}:{self.port}" if list(ranks) == [0] else ""
        return f"rank {shown}{place}"

    def reach_first(self) -> OSError | None:
        """Return why the store cannot be reached at this look, None once it is.

        The connection stays, to know when the first process ends: a new one for each look of each
        process would keep the store from answering.
        """
        if self.opens:
            return None
        try:
            self._line = reach(self.host, self.port, self.silence)
        except OSError as error:
            return error
        return None

    def check_first(self) -> None:
        """Raise StoppedError where nobody listens any more where the store was, or is reached."""
        if self._line is not None and (why := find_end(self._line)):
            raise self.make_error([0], why)

    def close(self) -> None:
        """Let go of the first process."""
        if self._line is not None:
            self._line.close()
