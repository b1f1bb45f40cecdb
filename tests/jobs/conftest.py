"""Two processes for all jobs that are tested in two."""

from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

import pytest

from cdm_cli.jobs.runtime import session
from tests.jobs.pair import Pair


@pytest.fixture(scope="session")
def pair():
    with ExitStack() as stack:
        pools = [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(2)]
        yield Pair([stack.enter_context(pool) for pool in pools])


@pytest.fixture
def in_pair(pair, monkeypatch):
    """Let jobs of two processes run in those that stand ready."""
    monkeypatch.setattr(session, "launch_processes", pair.launch)
