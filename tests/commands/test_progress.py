"""Mirrors cdm_cli/commands/_progress.py: counts, rates, time left, and what fits a width."""

import pytest

from cdm_cli.commands._progress import Pace, format_time


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def paced(*advances, total=60, done=0, note=""):
    """A pace after advances of (seconds, count)."""
    clock = Clock()
    pace = Pace("train base", total, "steps", done, clock)
    for seconds, count in advances:
        clock.now += seconds
        pace.advance(count, note)
    return pace, clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (90_000, "25:00:00")]
)
def test_clock_time(seconds, text):
    assert format_time(seconds) == text


def test_no_rate_before_any_time_has_passed():
    pace, _ = paced((0, 5), total=10)
    assert (pace.rate, pace.left) == (0.0, None)
    assert pace.make_line() == "train base 5/10 steps, 50.0 %"


def test_the_first_advance_counts_only_while_it_is_the_only_one():
    """It may have compiled a network, which the others do not."""
    pace, _ = paced((100, 1))
    assert pace.rate == pytest.approx(0.01)
    pace, _ = paced((100, 1), (2, 1), (2, 1))
    assert (pace.rate, pace.left) == (0.5, 114.0)


def test_what_an_earlier_run_did_is_no_speed_of_this_one():
    pace, _ = paced((2, 1), (2, 1), done=48)
    assert (pace.counted, pace.rate, pace.left) == ("50/60 steps", 0.5, 20.0)


def test_the_time_left_runs_down_and_stands_where_nothing_advances():
    pace, clock = paced((2, 1), (2, 1))
    lefts = []
    for _ in range(4):
        lefts.append(pace.left)
        clock.now += 1
    assert lefts == [116.0, 115.0, 114.0, 114.0]


def test_nothing_is_left_of_what_is_done():
    assert paced((2, 30), (2, 30))[0].left is None


@pytest.mark.parametrize(
    ("width", "what", "text"),
    [
        (100, "train base", "20/60 steps · 5/s · loss 0.1 · 437 images/s · 0:08 left"),
        (70, "train base", "20/60 steps · loss 0.1 · 437 images/s · 0:08 left"),
        (60, "train base", "20/60 steps · loss 0.1 · 0:08 left"),
        (45, "train base", "20/60 steps · loss 0.1 · 0:08 left"),
        (40, "trai…", "20/60 steps · loss 0.1 · 0:08 left"),
    ],
)
def test_what_fits(width, what, text):
    pace, _ = paced((2, 10), (2, 10), note="loss 0.1 · 437 images/s")
    assert pace.fit(width) == (what, text)
