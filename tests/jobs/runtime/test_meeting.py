"""Mirrors jobs/runtime/meeting.py and watch.py: nobody waits in silence, or for who has ended."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
from torch.distributed import PrefixStore, TCPStore

from cdm_cli.errors import CdmError, MismatchError, StoppedError, UsageError
from cdm_cli.jobs.runtime import meeting, watch
from cdm_cli.jobs.runtime.meeting import meet
from tests.jobs.runtime.two_hosts import free_port

LONG = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Tell at once, and take a second for a long silence."""
    monkeypatch.setattr(watch, "TELL", 0.1)
    monkeypatch.setattr(watch, "SILENCE", 1.0)
    monkeypatch.setattr(meeting, "ANSWER", 0.2)
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place():
    return f"127.0.0.1:{free_port()}"


def together(place, *processes, patience=LONG):
    """Let processes (rank, size) meet, each in a thread; return what each got, and was told."""
    told = [[] for _ in processes]

    def part(at):
        try:
            return meet(*processes[at], place, patience, told[at].append)
        except CdmError as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(part, range(len(processes)))), told


def test_all_meet_in_one_store(place):
    stores, told = together(place, (2, 3), (0, 3), (1, 3))
    stores[0].set("word", "said")
    assert [store.get("word") for store in stores] == [b"said"] * 3
    assert told[1] == []


def test_the_first_tells_whom_it_waits_for_and_for_how_long(place):
    (error,), (lines,) = together(place, (0, 3), patience=timedelta(seconds=1))
    assert isinstance(error, StoppedError)
    assert "rank 1, 2 did not come within 1 s" in error.what
    assert lines == ["rank 0 of 3 waits for rank 1, 2; at most 1 s more"]


def test_the_others_tell_that_they_wait_for_the_first_and_where(place):
    (error,), (line, *_) = together(place, (1, 2), patience=timedelta(seconds=1))
    assert isinstance(error, StoppedError)
    assert f"rank 0 at {place} did not come within 1 s: Connection refused" in error.what
    assert line[0].startswith(f"rank 1 of 2 waits for rank 0 at {place}: Connection refused")


def test_a_process_that_was_there_and_has_ended_ends_the_wait(place):
    """It had said that it is there; the last one to come finds all there, and it gone."""
    host, _, port = place.rpartition(":")
    server = TCPStore(host, int(port), 3, True, LONG, wait_for_workers=False, multi_tenant=True)
    PrefixStore("cdm/0", server).set("here/1", '{"size": 3, "host": "host1"}')
    found, _ = together(place, (0, 3), (2, 3))
    assert all(isinstance(error, StoppedError) for error in found)
    assert "rank 1 has ended: no sign of it" in found[0].what + found[1].what


def test_the_end_of_the_first_ends_the_wait_of_the_others(place):
    host, _, port = place.rpartition(":")
    server = [TCPStore(host, int(port), 3, True, LONG, wait_for_workers=False)]
    told = []

    def say(line):
        told.append(line)
        server.clear()

    with pytest.raises(StoppedError, match=rf"rank 0 at {place} has ended"):
        meet(1, 3, place, LONG, say)
    assert told == ["rank 1 of 3 waits for rank 0, 2; at most 30 s more"]


def test_two_processes_of_one_rank_are_told(place):
    found, _ = together(place, (0, 3), (1, 3), (1, 3))
    assert any(isinstance(e, MismatchError) and "RANK=1" in e.what for e in found)
    assert all(isinstance(error, CdmError) for error in found)


def test_processes_of_jobs_of_other_sizes_are_told(place):
    found, _ = together(place, (0, 2), (1, 3))
    assert any(isinstance(e, MismatchError) and "WORLD_SIZE is" in e.what for e in found)
    assert all(isinstance(error, CdmError) for error in found)


def test_a_port_that_is_taken_or_none_is_told(place):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of this host is taken"):
            meet(0, 2, f"127.0.0.1:{port}", LONG, print)
    for word in ("huh", "0", "70000"):
        with pytest.raises(UsageError, match=rf"host0:{word}: expected a port in 1..65535"):
            meet(0, 2, f"host0:{word}", LONG, print)


def test_a_program_that_listens_and_says_nothing_is_told_of_and_does_not_keep_a_process(place):
    told = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StoppedError, match="did not come within 1 s: what listens there does"):
            meet(1, 2, place, timedelta(seconds=1), told.append)
    assert "rank 1 of 2 waits for rank 0" in told[0]


def test_connections_that_are_of_no_process_keep_none_from_meeting(place):
    """Each cost a question to a name server, before which nobody was answered."""
    host, _, port = place.rpartition(":")
    patience, flooded = timedelta(seconds=5), threading.Event()
    with ThreadPoolExecutor() as pool, ExitStack() as held:

        def flood(line):
            for number in range(0 if flooded.is_set() else 100):
                other = held.enter_context(socket.create_connection((host, int(port))))
                other.sendall(b"GET / HTTP/1.0\r\n\r\n" * (number % 2))
            flooded.set()

        first = pool.submit(meet, 0, 2, place, patience, flood)
        assert flooded.wait(5)
        second = pool.submit(meet, 1, 2, place, patience, print)
        first.result().set("word", "said")
        assert second.result().get("word") == b"said"


def test_each_process_connects_once_however_long_it_waits(place, monkeypatch):
    """A store that takes hundreds of connections a second answers nobody."""
    reached, reach = [], socket.create_connection

    def connect(*asked):
        reached.append(reach(*asked))
        return reached[-1]

    monkeypatch.setattr(meeting.socket, "create_connection", connect)
    found, _ = together(place, (0, 3), (1, 3), patience=timedelta(seconds=1))
    assert all("rank 2 did not come within 1 s" in error.what for error in found)
    assert len(reached) == 1
    assert reached[0].fileno() == -1


def test_a_store_that_answers_no_more_ends_the_wait(place, monkeypatch):
    class Mute(PrefixStore):
        def check(self, keys):
            time.sleep(5)

    monkeypatch.setattr(meeting, "PrefixStore", Mute)
    (error,), _ = together(place, (0, 2), patience=timedelta(seconds=1))
    assert isinstance(error, StoppedError)
    assert "did not come within 1 s: what listens there does not answer" in error.what


def test_the_questions_of_a_wait_do_not_grow_with_the_number_of_processes(place, monkeypatch):
    """Each takes the store some time: with a question for each process all would fall silent."""
    asked, size = [], 200

    class Counting(PrefixStore):
        def check(self, keys):
            asked.append(keys)
            return super().check(keys)

        def add(self, key, number):
            asked.append(key)
            return super().add(key, number)

    host, _, port = place.rpartition(":")
    server = TCPStore(host, int(port), size, True, LONG, wait_for_workers=False, multi_tenant=True)
    for rank in range(1, size - 1):
        PrefixStore("cdm/0", server).set(f"here/{rank}", '{"size": 200, "host": "host1"}')
    monkeypatch.setattr(meeting, "PrefixStore", Counting)
    (error,), _ = together(place, (0, size), patience=timedelta(seconds=1))
    assert isinstance(error, StoppedError)
    assert f"rank {size - 1} did not come within 1 s" in error.what
    assert 0 < len(asked) < size
