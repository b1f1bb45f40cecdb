"""A process to fork from, and a summary of how many cases were tried."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.faults.children import killed

TALLIES = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def killer():
    """Do what `killed` does, from a process that never used torch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda *args, **how: pool.submit(killed, *args, **how).result()


@pytest.fixture
def told(pytestconfig):
    """Keep a tally for the summary."""
    return pytestconfig.stash.setdefault(TALLIES, []).append


def pytest_terminal_summary(terminalreporter, config):
    for tally in config.stash.get(TALLIES, []):
        terminalreporter.write_line(f"faults: {tally}")
