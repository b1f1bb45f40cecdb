"""Mirrors cdm_cli/options/sweeping.py: the flags of a race, and what is none."""

import pytest

from cdm_cli.errors import UsageError
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions, seconds_of


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


def test_a_time_is_seconds_minutes_or_hours():
    assert [seconds_of(text) for text in ("90s", "30m", "1.5h")] == [90, 1800, 5400]
    for text in ("30", "m", "", "1d", "-1m", "0s", "nanm", "infh"):
        with pytest.raises(UsageError, match="expected"):
            seconds_of(text)
