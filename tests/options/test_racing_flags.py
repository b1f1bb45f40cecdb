"""Mirrors cdm_cli/options/sweeping.py: the flags of a race, and what is none."""

import pytest

from cdm_cli.errors import UsageError
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from tests.asking import as_typed


@pytest.mark.parametrize("options", [SweepOptions, SweepSOptions])
@pytest.mark.parametrize(
    ("flags", "what", "advice"),
    [
        ({"budget": "30m"}, "--budget 30m is that of a race", "--race --budget 30m"),
        ({"budget_evals": 9}, "--budget-evals 9 is that of a race", "--race --budget-evals 9"),
        ({"race": True, "budget": "1h", "budget_evals": 9}, "has one budget", "--budget 1h"),
        ({"race": True, "ground_truth": True}, "real images are no points", "without --race and"),
        ({"race": True, "ground_truth_of": ("train",)}, "real images are no points", "--race"),
        ({"race": True, "apply": True}, "a grid which is chosen", "--apply, which goes on"),
    ],
)
def test_what_is_no_race_is_refused(options, flags, what, advice):
    with pytest.raises(UsageError, match=what) as error:
        options(**flags)
    assert advice in (error.value.next or "")


@pytest.mark.parametrize("text", ["30", "1w", "-1m", "0s", ""])
def test_a_budget_is_a_length_of_time(text):
    with pytest.raises(UsageError, match=f"--budget {text}: expected a length of time"):
        as_typed(SweepOptions, race=True, budget=text)
    assert as_typed(SweepOptions, race=True, budget="1h30m").budget == "1h30m"
