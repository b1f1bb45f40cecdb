"""Which processes of a job have ended: each holds a connection to every other one.

Nothing is sent. The system closes the connections of a process that ends, however it ends, even
while the others exchange nothing, as when each makes its own blocks of a store.
"""

import os
import select
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

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

    def connect(self, rank: int, place: Place) -> bool:
        """Hold a connection to another process; return whether the network allows it.

        A place on the loopback of another host is not tried: it may be anybody's on this one.
        """
        if ip_address(place.host).is_loopback and place.network != self.place.network:
            return False
        with suppress(OSError):
            self._lines[rank] = socket.create_connection(place[:2], CONNECT)
        return rank in self._lines

    def find_ended(self) -> list[int]:
        """Return the ranks of processes that have ended, of those that could be reached."""
        poll, ranks = select.poll(), {line.fileno(): rank for rank, line in self._lines.items()}
        for number in ranks:
            poll.register(number, select.POLLIN)
        told = sorted(ranks[number] for number, _ in poll.poll(0))
        return [rank for rank in told if _is_closed(self._lines[rank])]

    def close(self) -> None:
        """Let go of all connections, which the others take for the end of this process."""
        for line in (self._listener, *self._lines.values()):
            line.close()


def _is_closed(line: socket.socket) -> bool:
    """Whether the other end of a line is closed; what speaks there is no process of a job."""
    try:
        return not line.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        return True
    except OSError:  # the network is lost, which says nothing of the process
        return False
