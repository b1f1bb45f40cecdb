"""Mirrors cdm_cli/commands/_report.py: what a log and a terminal get to see."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from cdm_cli.commands._report import Lines, Quiet


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_log_gets_a_line_every_few_seconds_and_the_last():
    stream, clock = io.StringIO(), Clock()
    report = Lines(stream, seconds=5, clock=clock)
    report.say("reading lowres.h5")
    with report.track("sample", 100, "images") as advance:
        for _ in range(4):
            clock.now += 3
            advance(20, "fine")
    assert stream.getvalue().splitlines() == [
        "reading lowres.h5",
        "sample 40/100 images, 40.0 %, 6.67/s, 0:09 left, fine",
        "sample 80/100 images, 80.0 %, 6.67/s, 0:03 left, fine",
    ]


def test_work_done_before_the_first_line_is_still_told():
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, seconds=5, clock=clock).track("train", 2, "steps") as advance:
        clock.now += 1
        advance(2, "")
    assert stream.getvalue() == "train 2/2 steps, 100.0 %, 2/s\n"


def test_nothing_done_says_nothing():
    stream = io.StringIO()
    with Lines(stream).track("train", 0, "steps"):
        pass
    assert stream.getvalue() == ""


def test_quiet_says_nothing(capsys):
    report = Quiet()
    report.say("a")
    with report.track("sample", 2, "images") as advance:
        advance(1, "")
    assert capsys.readouterr() == ("", "")


def test_what_an_earlier_run_did_is_counted_but_not_in_the_rate():
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, seconds=5, clock=clock).track("train", 60, "steps", 48) as advance:
        for _ in range(12):
            clock.now += 2
            advance(1, "")
    assert stream.getvalue().splitlines() == [
        "train 51/60 steps, 85.0 %, 0.5/s, 0:18 left",
        "train 54/60 steps, 90.0 %, 0.5/s, 0:12 left",
        "train 57/60 steps, 95.0 %, 0.5/s, 0:06 left",
        "train 60/60 steps, 100.0 %, 0.5/s",
    ]


def test_the_last_line_has_the_last_note():
    """Also where the line before it told the last count."""
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, seconds=5, clock=clock).track("sample", 50, "evaluations") as advance:
        clock.now += 6
        advance(50, "0 of 50 images")
        advance(0, "50 of 50 images")
    assert stream.getvalue().splitlines()[-1].endswith("50/50 evaluations, 100.0 %, 8.33/s, "
                                                       "50 of 50 images")  # fmt: skip


def test_a_count_within_another_is_told_once_it_takes_long():
    stream, clock = io.StringIO(), Clock()
    report = Lines(stream, seconds=5, clock=clock)
    with report.track("train", 1, "steps") as advance:
        clock.now += 6
        advance(1, "loss 0.1")
        for seconds in (1, 3):
            with report.track("judge val", 4, "images") as inner:
                for _ in range(4):
                    clock.now += seconds
                    inner(1, "")
    assert stream.getvalue().splitlines() == [
        "train 1/1 steps, 100.0 %, 0.167/s, loss 0.1",
        "judge val 1/4 images, 25.0 %, 0.333/s, 0:09 left",
        "judge val 3/4 images, 75.0 %, 0.333/s, 0:03 left",
        "judge val 4/4 images, 100.0 %, 0.333/s",
    ]


BAR = """
from cdm_cli.commands._report import Bars
report = Bars()
report.say("reading [lowres].h5")
with report.track("sample {x}", 4, "images") as advance:
    advance(4, "[loss] 0.1")
"""


def test_what_is_said_cannot_steer_the_terminal():
    stream = io.StringIO()
    Lines(stream).say("read a\x1b[2J\nb.png")
    assert stream.getvalue() == "read a\\x1b[2J\\nb.png\n"


def on_a_terminal(code, **variables):
    """Run code with a terminal as its stderr; return what the terminal got."""
    host, guest = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | variables
    subprocess.run([sys.executable, "-c", code], stderr=guest, check=True, env=environment)
    os.close(guest)
    shown = b""
    try:
        while part := os.read(host, 65536):
            shown += part
    except OSError:  # how a Linux terminal says that its other end is closed
        pass
    os.close(host)
    return shown.decode()


def test_a_terminal_gets_a_bar():
    shown = on_a_terminal(BAR)
    assert "reading [lowres].h5" in shown
    assert "sample {x}" in shown
    assert "4/4" in shown
    assert "[loss] 0.1" in shown
    assert "\x1b[38" in shown or "\x1b[3" in shown


NARROW = """
from cdm_cli.commands._report import Bars
report = Bars()
with report.track("train base", 60, "steps", 48) as advance:
    for _ in range(12):
        advance(1, "loss 0.1234 · 437 images/s")
    with report.track("judge val", 2000, "images") as inner:
        inner(1999, "")
        report._shown.refresh()
"""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (100, "60/60 steps · {rate} · loss 0.1234 · 437 images/s"),
        (60, "60/60 steps · loss 0.1234"),
        (30, "60/60 steps · loss 0.1234"),
    ],
)
def test_the_loss_stays_on_a_narrow_terminal(columns, shown):
    screen = on_a_terminal(NARROW, COLUMNS=str(columns), NO_COLOR="1")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    assert all(len(line) <= columns for line in lines)
    told = re.escape(shown).replace(r"\{rate\}", r"\d+/s")
    assert [line for line in lines if re.search(told, line)]
    assert [line for line in lines if "1999/2000 images" in line]


def test_no_color_takes_the_colours_away():
    assert "\x1b[3" not in on_a_terminal(BAR, NO_COLOR="1")
