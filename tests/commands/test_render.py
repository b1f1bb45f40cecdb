"""Mirrors cdm_cli/commands/_render.py: results as JSON and as text."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.commands._columns import align, fold, make_columns
from cdm_cli.commands._render import make_plain, show, write_lines
from cdm_cli.config import ScheduleConfig
from tests.tiny import arrays_of, write_store


@dataclass(frozen=True)
class Row:
    s: int
    fid: float


@dataclass(frozen=True)
class Result:
    out: Path
    best_s: int
    rows: tuple[Row, ...]


RESULT = Result(Path("sweep"), 251, (Row(0, 31.25), Row(251, 8.0)))


def test_plain_knows_dataclasses_models_paths_and_what_json_cannot_say():
    assert make_plain(RESULT) == {
        "out": "sweep", "best_s": 251, "rows": [{"s": 0, "fid": 31.25}, {"s": 251, "fid": 8.0}],
    }  # fmt: skip
    assert make_plain({"a": math.nan, 3: math.inf, "b": True}) == {"a": None, "3": None, "b": True}
    assert make_plain(ScheduleConfig())["kind"] == "cosine"


def test_json_is_one_line_of_one_object(capsys):
    show(RESULT, as_json=True)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("\n") == 1
    assert json.loads(shown.out) == make_plain(RESULT)


def test_text_has_aligned_scalars_and_then_tables(capsys):
    show(RESULT, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "out     sweep",
        "best s  251",
        "",
        "rows:",
        "  s    fid",
        "  0  31.25",
        "251      8",
    ]


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_one_shows_what_came_out(rank, shown, tmp_path):
    write_store(tmp_path / "data.h5", "prepared", {"train": arrays_of(4, (8,))})
    words = ["inspect", str(tmp_path / "data.h5"), "--json"]
    result = CliRunner().invoke(app, words, env={"RANK": rank, "WORLD_SIZE": "2"})
    assert result.exit_code == 0
    assert bool(result.stdout) == shown


def test_a_table_alone_starts_without_an_empty_line():
    assert write_lines({"rows": [{"a": 1}]}) == ["rows:", "a", "1"]


def test_words_stand_left_and_gaps_stay_empty():
    rows = [{"name": "truncated", "fid": None}, {"name": "x", "num": 3}]
    assert align(make_columns(rows)) == ["name       num", "truncated", "x            3"]


def test_what_is_empty_is_not_printed():
    result = {"out": "a.h5", "seed": 0, "alpha_bar": None, "damaged": [], "note": "", "why": {}}
    assert write_lines(result) == ["out   a.h5", "seed  0"]
    assert make_plain(result) == result


class Shown:
    def model_dump(self):
        return {"digest": "0a" * 32, "fid": 2.5}

    def show_in_short(self):
        return ["good", [{"metric": "fid", "value": 2.5}], "means well"]


def test_a_short_form_is_shown_first_and_alone_unless_all_is_asked_for():
    short = ["good", "metric  value", "fid       2.5", "means well"]
    assert write_lines(Shown(), whole=False) == short
    assert write_lines(Shown()) == [*short, "", f"digest  {'0a' * 32}", "fid     2.5"]
    assert make_plain(Shown()) == {"digest": "0a" * 32, "fid": 2.5}


def test_a_terminal_gets_a_table_of_its_width_a_pipe_plain_columns(capsys, monkeypatch):
    rows = {"rows": [{"name": "[bold]a\x1b[2J", "fid": 1.5}, {"name": "b" * 60, "fid": 20.25}]}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    show(rows, as_json=False)
    shown = capsys.readouterr().out
    assert "─" in shown
    assert "[bold]a\\x1b[2J" in shown, "neither markup nor what would steer the terminal"
    assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 40
    monkeypatch.undo()
    show(rows, as_json=False)
    assert "─" not in capsys.readouterr().out


def test_a_narrow_terminal_breaks_between_words_and_moves_columns_below(capsys, monkeypatch):
    rows = [{"name": "base", "kind": "classifier", "made from": "a.h5, b.h5", "size": 3}]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width, expected in (
        (80, ["base  classifier  a.h5, b.h5     3"]),
        (31, ["base  classifier  a.h5,      3", "                  b.h5"]),
        (22, ["base  classifier", "  made from a.h5, b.h5", "  · size 3"]),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        show({"rows": rows}, as_json=False)
        shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        shown = shown[next(at for at, line in enumerate(shown) if "─" in line) + 1 :]
        assert [line.split() for line in shown] == [line.split() for line in expected]


def test_names_are_said_as_words_and_variables_as_they_are_typed(capsys):
    told = {"batch_size": 2, "environment": {"CDM_RUNS": "here"}, "environment CDM_DATA": "d.h5"}
    show(told, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "batch size            2", "environment CDM_RUNS  here", "environment CDM_DATA  d.h5",
    ]  # fmt: skip


def test_words_stand_below_words_on_a_terminal_and_commands_stay_whole(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    show({"classes": "one two three four", "made by": "cdm sample base --num 40"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "classes  one two", "         three four", "made by  cdm sample base --num 40",
    ]  # fmt: skip


class Metrics:
    """Has the methods of cdm_cli.metrics.table.MetricTable that the commands use."""

    def header(self):
        return ["metric", "value", "against"]

    def lines(self):
        return [["fid", "8.25", "train (400)"], ["is", "10.5", ""]]

    def to_json(self):
        return {"rows": [{"metric": "fid", "value": 8.25}], "notes": ["few samples"]}

    def gather_notes(self):
        return ["few samples"]


def test_a_table_of_metrics_shows_its_own_cells_and_notes():
    shown = ["metric  value  against", "fid      8.25  train (400)", "is       10.5", "few samples"]
    assert write_lines(Metrics()) == shown
    assert write_lines({"best_s": 5, "table": Metrics()}) == ["best s  5", "", "table:", *shown]
    assert make_plain({"table": Metrics()}) == {"table": Metrics().to_json()}


def test_nested_values_are_flattened_and_long_lists_shortened():
    nested = {"plan": {"seed": 0, "lr": {"max": 1e-4}}}
    assert write_lines(nested) == ["plan seed    0", "plan lr max  0.0001"]
    first = ", ".join(map(str, range(12)))
    assert write_lines({"ids": list(range(14))}) == [f"ids  {first}, … (14 in all)"]
    assert make_plain({"ids": list(range(14))})["ids"][-1] == 13


def test_a_result_may_say_itself_what_is_shown():
    class Judged:
        def model_dump(self):
            return {"store": Path("samples.h5"), "metrics": [{"metric": "fid", "value": 2.5}]}

    assert make_plain(Judged()) == {
        "store": "samples.h5", "metrics": [{"metric": "fid", "value": 2.5}],
    }  # fmt: skip
    assert write_lines(Judged()) == [
        "store  samples.h5",
        "",
        "metrics:",
        "metric  value",
        "fid       2.5",
    ]


def test_what_holds_lists_in_a_row_is_left_to_json():
    rows = {"rows": [{"name": "fid", "value": 1.5, "parts": {"without": [1.0, 2.0]}}]}
    assert write_lines(rows) == ["rows:", "name  value", "fid     1.5"]
    assert make_plain(rows) == rows


def test_a_line_of_a_report_is_broken_between_words_but_no_command():
    assert fold("fid train 1.135, fid val 1.147", 20) == ["fid train 1.135, fid", "val 1.147"]
    assert fold("$ cdm sample base --num 40", 20) == ["$ cdm sample base --num 40"]


def test_a_truth_is_yes_or_no(capsys):
    show(
        {"clip": True, "points": [{"s": 0, "judged": True}, {"s": 5, "judged": False}]},
        as_json=False,
    )
    said = capsys.readouterr().out.split()
    assert [word for word in said if word in ("yes", "no", "True", "False")] == ["yes", "yes", "no"]


def test_a_table_without_rows_has_no_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["ls"]).stdout.startswith("nothing of cdm is here")
