"""Two of the same command at a time: neither harms the other, and one of them says who it is."""

import pytest

from tests.faults.two_jobs import at_every_call, once


@pytest.mark.parametrize(
    ("job", "most"),
    [("create", 40), ("prepare", 12), ("prepare, packed", 12), ("prepare, some bad", 12),
     ("sample", 4)],
)  # fmt: skip
def test_one_wins_and_the_other_names_it(tmp_path, told, job, most):
    tally = at_every_call(job, tmp_path / "home", most)
    told(tally)
    assert tally.failed == []


def test_a_training_is_typed_twice_once(tmp_path, killer, told):
    """At one of its calls; `python -m tests.faults.longer --every-call train` tries all."""
    tally = once("train", tmp_path / "home", killer)
    told(tally)
    assert tally.failed == []
