"""Mirrors cdm_cli/jobs/runtime/ends.py: which of several ends explains most."""

import signal

import pytest

from cdm_cli.errors import BadInputError, CdmError, DiskError, StoppedError
from cdm_cli.jobs.runtime.ends import conclude
from cdm_cli.jobs.runtime.stop import Stop


def error(kind, what):
    return "error", (kind, what, "", "")


STOPPED = error(StoppedError, "stopped by SIGTERM")
KILLED = ("died", -signal.SIGKILL)
BY_US = ("ended", StoppedError.exit_code)
SAVED = error(StoppedError, "stopped by SIGTERM after step 3 of 9")
LOST = error(StoppedError, "process 0 of 2 lost touch with another one: closed by peer")


@pytest.mark.parametrize(
    ("ends", "kind", "says"),
    [
        ({0: ("result", 1), 1: KILLED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({1: KILLED, 0: STOPPED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({0: STOPPED, 1: KILLED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({1: error(DiskError, "full"), 0: BY_US}, DiskError, "full"),
        ({1: error(BadInputError, "bad"), 0: STOPPED}, BadInputError, "bad"),
        ({0: STOPPED, 1: STOPPED}, StoppedError, "stopped by SIGTERM"),
        ({0: ("died", 1), 1: BY_US}, StoppedError, "process 0 of 2 died with exit code 1"),
        ({0: STOPPED}, StoppedError, "stopped by SIGTERM"),
        ({0: ("result", 1)}, StoppedError, "process 1 of 2 did not end"),
    ],
)
def test_the_end_that_explains_most_is_told(ends, kind, says):
    """In the order in which the processes ended."""
    with pytest.raises(CdmError, match=says) as caught:
        conclude(ends, 2, Stop())
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ({0: BY_US, 1: BY_US}, "stopped by SIGTERM — what was saved so far is complete"),
        ({0: LOST, 1: BY_US}, "stopped by SIGTERM — what was saved so far is complete"),
        ({1: BY_US, 0: LOST}, "stopped by SIGTERM — what was saved so far is complete"),
        ({1: LOST, 0: SAVED}, "stopped by SIGTERM after step 3 of 9"),
        ({1: BY_US, 0: SAVED}, "stopped by SIGTERM after step 3 of 9"),
    ],
)
def test_of_a_stop_it_is_told_what_was_saved(ends, says):
    """One process of a job may have had nothing to save, and have left at once."""
    stop = Stop()
    stop.asked = "SIGTERM"
    with pytest.raises(StoppedError, match=says):
        conclude(ends, 2, stop)


def test_a_stop_is_by_what_asked_the_parent():
    """Which asks the others by SIGTERM; one of them may be told of it by another one."""
    stop = Stop()
    stop.asked = "--stop-after"
    for by in ("SIGTERM", "another process"):
        told = error(StoppedError, f"stopped by {by} after step 3 of 9")
        with pytest.raises(StoppedError, match="by --stop-after after step 3 of 9"):
            conclude({0: told, 1: told}, 2, stop)


def test_the_result_is_that_of_the_first():
    assert conclude({1: ("result", "b"), 0: ("result", "a")}, 2, Stop()) == "a"


@pytest.mark.parametrize("other", [BY_US, LOST])
def test_ctrl_c_where_no_process_had_anything_to_save_is_ctrl_c(other):
    """Be it of a terminal, which all processes hear, or of the parent alone, which passes it on."""
    stop = Stop()
    stop.asked = "Ctrl-C"
    with pytest.raises(KeyboardInterrupt):
        conclude({0: other, 1: BY_US}, 2, stop)
    with pytest.raises(StoppedError, match="stopped by Ctrl-C after step 3 of 9"):
        conclude({0: SAVED, 1: BY_US}, 2, stop)


def test_ctrl_c_in_a_process_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        conclude({0: ("interrupted", None), 1: BY_US}, 2, Stop())
