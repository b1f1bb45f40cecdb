"""Mirrors cdm_cli/commands/_report.py: what a log and a terminal get to see."""

import io
import os
import pty
import subprocess
import sys

import pytest

from cdm_cli.commands._report import Lines, Quiet, clock_time, progress_line


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


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (90_000, "25:00:00")]
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


def test_no_rate_before_any_time_has_passed():
    assert progress_line("train", 5, 10, "steps", 0.0) == "train 5/10 steps, 50.0 %"


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


def test_no_color_takes_the_colours_away():
    assert "\x1b[3" not in on_a_terminal(BAR, NO_COLOR="1")
