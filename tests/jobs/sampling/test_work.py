"""Mirrors cdm_cli/jobs/sampling/work.py, on what an older version left behind.

That such a store is finished: tests/test_old_ones_continue.py.
"""

import zipfile
from pathlib import Path

import pytest

from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.sampling.sample import plan_work, run
from cdm_cli.jobs.sampling.work import keep_old_chain
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling
from tests.asking import as_typed
from tests.test_old_ones_continue import HOME
from tests.tiny import Told

CPU = Compute(device="cpu", batch_size=8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)


def options(**changes):
    values = {"num": 66, "keep_s": (5,), "out": Path("lowres.h5"), "compute": CPU}
    return as_typed(SampleOptions, **(values | changes))


def begun(**changes):
    """The times of the chain, and what is told."""
    asked, told = options(**changes), Told()
    work = keep_old_chain(plan_work(asked), asked.out, told)
    return work.chain.schedule.times.tolist()[1:], told.lines


def test_an_older_store_has_the_chain_that_stepped_on_what_it_kept():
    times, lines = begun()
    assert times == [5, 7, 13, 20]
    assert lines == [
        "lowres.h5 was begun by an older cdm, whose --keep-s adds steps: it is finished so"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"out": Path("none.h5")},
        {"out": Path("samples.h5")},
        {"keep_s": (6,)},
        {"keep_s": (7,)},
        {"keep_s": ()},
        {"sampling": Sampling(steps=2)},
    ],
)
def test_any_other_is_today_s(changes):
    times, lines = begun(**changes)
    steps = changes.get("sampling", Sampling()).steps or 3
    assert len(times) == steps
    assert not lines


def test_a_store_of_today_is_continued_by_today_s_rule():
    run(options(out=Path("new.h5")), Told())
    times, lines = begun(out=Path("new.h5"))
    assert (times, lines) == ([7, 13, 20], [])
    with pytest.raises(WouldOverwriteError, match=r"lowres\.h5 is of.*-o lowres-2\.h5$"):
        run(options(keep_s=(6,)), Told())
