"""A process to fork from, constants that stay what they are, and a count of cases tried."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.faults.children import killed

TALLY = "faults"


@pytest.fixture(scope="session")
def killer():
    """Do what `killed` does, from a process that never used torch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda *args, **how: pool.submit(killed, *args, **how).result()


@pytest.fixture(autouse=True)
def unchanged():
    """Jobs run in this process with smaller blocks, among others: no test after them may see it."""
    before = constants()
    yield
    assert constants() == before


def constants():
    """Return the numbers that modules whose jobs are made small name in capitals."""
    from cdm_cli.jobs.sampling import blocks
    from cdm_cli.jobs.sweep import fill, racers

    return {
        (module.__name__, each): value
        for module in (blocks, fill, racers)
        for each, value in vars(module).items()
        if each.isupper() and isinstance(value, int | float)
    }


@pytest.fixture
def told(record_property):
    """Keep a tally for the summary, also of a process that pytest runs tests in."""
    return lambda tally: record_property(TALLY, str(tally))


def pytest_terminal_summary(terminalreporter):
    for reports in terminalreporter.stats.values():
        for report in (found for found in reports if getattr(found, "when", "") == "call"):
            for name, text in getattr(report, "user_properties", []):
                if name == TALLY:
                    terminalreporter.write_line(f"faults: {text}")
