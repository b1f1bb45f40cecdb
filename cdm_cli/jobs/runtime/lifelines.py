"""Which processes of a job have ended: each holds a connection to every other one.

Nothing is sent. The system closes the connections of a process that ends, however it ends, even
while the others exchange nothing, as when each makes its own blocks of a store.
"""

import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

ENDED = "has ended"
CONNECT = 2.0  # seconds to reach another process; one that is not reached is not watched
BOOT, NET = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/net")


class Place(NamedTuple):
    """Where a process can be reached. network: which loopback it has, as `name_network` says."""

    host: str
    port: int
    network: str


def name_network() -> str:
    """Return what names the network of this process alone: that of its host or its container."""
    with suppress(OSError):
        return f"{BOOT.read_text().strip()} {os.readlink(NET)}"
    return socket.gethostname()


class Lifelines:
    """The connections of one process; `connect` makes them once all have a place."""

    def __init__(self, address: str) -> None:
        """Listen where others reach this host. address: HOST:PORT that all of them reach."""
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), CONNECT) as line:
            own = str(line.getsockname()[0])
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        self._listener = socket.create_server((own, 0), family=family, backlog=socket.SOMAXCONN)
        self.place = Place(own, int(self._listener.getsockname()[1]), name_network())
        self._lines: dict[int, socket.socket] = {}

    def may_reach(self, place: Place) -> bool:
        """Return whether a place is to be tried: another host's loopback is anybody's on this."""
        return place.network == self.place.network or not ip_address(place.host).is_loopback

    def connect(self, rank: int, place: Place) -> bool:
        """Hold a connection to another process; return whether the network allows it."""
        with suppress(OSError):
            self._lines[rank] = reach(place.host, place.port)
        return rank in self._lines

    def find_ended(self) -> list[int]:
        """Return the ranks of processes that have ended, of those that could be reached."""
        return [rank for rank, line in sorted(self._lines.items()) if find_end(line) == ENDED]

    def close(self) -> None:
        """Let go of all connections, which the others take for the end of this process."""
        for line in (self._listener, *self._lines.values()):
            line.close()


def reach(host: str, port: int, silence: float | None = None) -> socket.socket:
    """Return a connection, for `find_end`. Raises OSError within `CONNECT` seconds.

    silence: seconds, about, without an answer of the other host's system that end it; None: none.
    """
    line = socket.create_connection((host, port), CONNECT)
    line.setblocking(False)
    if silence is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        often = max(1, round(silence / 4))
        for name, value in (("TCP_KEEPIDLE", often), ("TCP_KEEPINTVL", often), ("TCP_KEEPCNT", 3)):
            if number := getattr(socket, name, None):  # macOS lacks the first
                line.setsockopt(socket.IPPROTO_TCP, number, value)
    return line


def find_end(line: socket.socket) -> str:
    """Return how the other end of a line ended, "" if it has not.

    What speaks there is no process of a job: nothing is known of its end.
    """
    try:
        said = line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return ""
    except ConnectionResetError:
        return ENDED
    except OSError as error:
        return f"was not reached for long: {error.strerror or error}"
    return "" if said else ENDED
