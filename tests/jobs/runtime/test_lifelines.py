"""Mirrors cdm_cli/jobs/runtime/lifelines.py: who has ended is known, and nobody else is."""

import socket

import pytest

from cdm_cli.jobs.runtime.lifelines import Lifelines, Place


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
        closed = Place("127.0.0.1", server.getsockname()[1])
    assert not mine.connect(1, closed)
    assert mine.find_ended() == []
    mine.close()
