"""Mirrors cdm_cli/jobs/runtime/lifelines.py: who has ended is known, and nobody else is."""

import select
import socket

import pytest

from cdm_cli.jobs.runtime.lifelines import Lifelines
from cdm_cli.jobs.runtime.world import World, _hold_lines


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_process_that_ends_is_known_by_all_others(address):
    lines = [Lifelines(address) for _ in range(3)]
    for rank, mine in enumerate(lines):
        for other, theirs in enumerate(lines):
            if other != rank:
                mine.connect(other, theirs.place)
    assert [mine.find_ended() for mine in lines] == [[], [], []]
    lines[1].close()
    assert lines[0].find_ended() == [1]
    assert lines[2].find_ended() == [1]
    for mine in lines:
        mine.close()


def test_a_process_that_cannot_be_reached_is_not_taken_for_one_that_ended(address):
    mine = Lifelines(address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = mine.place._replace(port=server.getsockname()[1])
    assert not mine.connect(1, closed)
    assert mine.find_ended() == []
    mine.close()


def test_another_host_is_not_looked_for_on_the_loopback_of_this_one(address, monkeypatch):
    """A name of its own leads a host to 127.0.1.1, as Debian has it; here others listen there."""
    other = Lifelines(address)
    hidden = other.place._replace(network="host1")
    monkeypatch.setattr(World, "gather", lambda self, place: [hidden, place, other.place])
    lines = _hold_lines(World(1, 3), address).lines
    assert lines is not None
    other.close()
    assert lines.find_ended() == [2]
    lines.close()


def test_what_speaks_is_not_taken_for_a_process_that_has_ended(address):
    mine = Lifelines(address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert mine.connect(1, mine.place._replace(port=server.getsockname()[1]))
        line, _ = server.accept()
        line.sendall(b"SSH-2.0\r\n")
        assert select.select(list(mine._lines.values()), [], [], 10)[0]
        assert mine.find_ended() == []
        line.close()
    mine.close()
