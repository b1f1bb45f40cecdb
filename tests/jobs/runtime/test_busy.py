"""Mirrors cdm_cli/jobs/runtime/busy.py: who runs beside a command is told, with what to type."""

from types import SimpleNamespace

import pytest

from cdm_cli.jobs.runtime import busy


class Machine:
    """Four cores of ours and two of others, on which programs work while time goes by."""

    def __init__(self, stat):
        self.stat, self.ticks, self.now, self.ours = stat, [0] * 6, 0.0, 0.0
        self.pass_time(0)

    def pass_time(self, seconds, ours=0.0, others=()):
        """Let seconds pass; ours, others: of cores that are kept busy meanwhile."""
        self.now += seconds
        self.ours += ours * seconds
        for core, share in enumerate((ours, *others)):
            self.ticks[core] += round(100 * share * seconds)
        lines = [
            f"cpu{core} {worked} 0 100 5000 30 0 0 70 0" for core, worked in enumerate(self.ticks)
        ]
        self.stat.write_text("\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 6 7", ""]))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.delenv(busy.THREADS, raising=False)
    monkeypatch.delenv(busy.TOLD, raising=False)
    made = Machine(tmp_path / "stat")
    monkeypatch.setattr(busy, "STAT", made.stat)
    monkeypatch.setattr(busy.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(busy.os, "times", lambda: (made.ours, 0.0, 0.0, 0.0, made.now))
    clock = SimpleNamespace(monotonic=lambda: made.now, sleep=made.pass_time)
    monkeypatch.setattr(busy, "time", clock)
    return made


def advice_after(machine, *, processes=1, **work):
    busy.begin()
    machine.pass_time(2.0, **work)
    return busy.advise(processes)


@pytest.mark.parametrize("others", [(), (0.05, 0.05, 0.05), (0, 0, 0, 1, 1)])
def test_nothing_is_said_where_nothing_else_runs_on_our_cores(machine, others):
    assert advice_after(machine, ours=1.0, others=others) == ""


def test_what_ran_before_the_command_does_not_count(machine):
    machine.pass_time(100.0, others=(1, 1, 1))
    assert advice_after(machine, ours=1.0) == ""


@pytest.mark.parametrize(
    ("others", "processes", "taken", "threads"),
    [((0.7,), 1, 1, 3), ((1, 1), 1, 2, 2), ((1, 1), 2, 2, 1), ((1, 1, 1, 0, 0), 1, 3, 1)],
)
def test_cores_of_others_are_counted_and_left_to_them(machine, others, processes, taken, threads):
    said = advice_after(machine, ours=1.0, others=others, processes=processes)
    assert said.startswith(f"other programs keep {taken} of these 4 cores busy")
    assert f"OMP_NUM_THREADS={threads} before the command" in said
    assert busy.advise() == "", "once"


@pytest.mark.parametrize("name", [busy.THREADS, busy.TOLD])
def test_whoever_knows_is_told_nothing(machine, monkeypatch, name):
    monkeypatch.setenv(name, "4")
    assert advice_after(machine, others=(1, 1, 1)) == ""


def test_where_it_cannot_be_known_nothing_is_said(machine):
    busy.begin()
    machine.stat.unlink()
    assert busy.advise() == ""
    busy.begin()
    assert busy.advise() == ""


def test_two_looks_are_apart(machine):
    """A command that imports little waits until ticks tell something."""
    busy.begin()
    assert busy.advise() == ""
    assert machine.now == pytest.approx(busy.SECONDS)
