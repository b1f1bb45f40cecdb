"""Mirrors cdm_cli/jobs/sweep/race_page.py: which points are beaten, when, and what it took."""

import pytest

from cdm_cli.errors import MissingError
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.sweep.page import make_page
from cdm_cli.jobs.sweep.plan import make_mark
from cdm_cli.jobs.sweep.race_file import Number, RaceFile, RoundFile, Standing, write_race
from cdm_cli.jobs.sweep.race_page import tell_race
from cdm_cli.jobs.sweep.race_table import FEWER
from cdm_cli.jobs.sweep.table import SweepFile
from tests.jobs.pictures.reading import Read

POINTS = tuple({"augment": "none" if s == 0 else "truncated", "s": s} for s in (0, 251, 501))
COMMAND = "cdm sweep-s --s 0,251,501 --race --budget-evals 900 --out sweep"
IDENTITY = {"num": 100}


def standing(point, verdict, difference, paused=False):
    return Standing(
        point=POINTS[point], verdict=verdict, difference=difference, uncertainty=0.01, paused=paused
    )


def number(point, num, value):
    return Number(point=POINTS[point], num=num, value=value, without=(value, value + 0.001))


def raced(**changes):
    """Return a race in which s = 0 left in the first round of two."""
    may = "may be the best"
    rounds = (
        RoundFile(round=1, num=40, level=0.011, evaluations=360, against=POINTS[2], points=(
            standing(0, "beaten", 0.25), standing(1, may, 0.02), standing(2, may, 0.0),
        )),
        RoundFile(round=2, num=80, level=0.039, evaluations=600, against=POINTS[1], points=(
            standing(1, may, 0.0), standing(2, may, 0.015),
        )),
    )  # fmt: skip
    numbers = [number(0, 40, 0.8), number(1, 40, 0.57), number(2, 40, 0.55)]
    numbers += [number(1, 80, 0.41), number(2, 80, 0.43)]
    given = {
        "command": COMMAND, "sweep": make_mark(IDENTITY), "asked": "900 evaluations",
        "evaluations": 900, "reference": "train", "points": POINTS, "costs": (3, 3, 3), "num": 100,
        "step": 10, "grid": 900, "rounds": rounds, "left": POINTS[1:],
        "conclusion": "2 of 3 may be the best.", "numbers": tuple(numbers),
    }  # fmt: skip
    return RaceFile(**(given | changes))


def written(tmp_path, race):
    sweep = SweepFile(command="cdm sweep-s --s 0,251,501 --out sweep", identity=IDENTITY,
                      parents=({"role": "stage", "name": "runs/sr", "digest": "d1"},))  # fmt: skip
    (tmp_path / "sweep.json").write_text(sweep.model_dump_json())
    write_race(tmp_path, race)
    return tmp_path


def test_a_page_of_a_race_says_who_is_beaten_when_and_by_how_much(tmp_path):
    read = Read(make_page(written(tmp_path, raced())))
    assert "2 of 3 may be the best." in read.words
    first = (
        "Round 1: 3 points on 40 images each, against truncated s = 501; 1 beaten. The best "
        "point is among the beaten with a chance of 1.1 % at most."
    )
    cells = read.words[read.words.index(first) + 7 :]
    assert cells[:6] == ["s = 0", "0.8", "0.0005", "0.25", "0.01", "beaten"]
    assert cells[6] == "truncated s = 251"
    assert "beaten by 0.25 ± 0.01" in read.words
    assert len(read.images) == 1


def test_it_says_which_points_are_paused_and_what_that_means(tmp_path):
    first, second = raced().rounds
    paused = standing(1, "may be the best", 0.02, paused=True)
    first = first.model_copy(update={"points": (first.points[0], paused, first.points[2])})
    words = Read(make_page(written(tmp_path, raced(rounds=(first, second))))).words
    assert any("1 beaten, 1 paused. The best point" in one for one in words)
    assert any("A paused point may be the best, but" in one for one in words)
    assert words.count("may be the best, paused") == 1
    plain = Read(make_page(written(tmp_path, raced()))).words
    assert not any("paused" in one and one not in FEWER for one in plain)


def test_it_says_what_the_race_took_and_the_grid_would_have(tmp_path):
    read = Read(make_page(written(tmp_path, raced())))
    cells = read.words[read.words.index("round 1") :]
    assert cells[:4] == ["round 1", "3", "40", "360"]
    assert cells[4:8] == ["round 2", "2", "80", "240"]
    assert "66.7 % of the evaluations of the grid. Asked for: 900 evaluations." in read.words


def test_it_has_the_commands_of_the_race_and_of_the_grid(tmp_path):
    said = Read(make_page(written(tmp_path, raced()))).said
    assert COMMAND in said
    assert "cdm sweep-s --s 0,251,501 --out sweep" in said


@pytest.mark.parametrize("budget", ["2h", "'1h 30m'"])
def test_the_command_of_the_grid_has_no_part_of_a_budget_that_is_a_time(tmp_path, budget):
    command = f"cdm sweep --race --budget {budget} --out sweep"
    said = Read(make_page(written(tmp_path, raced(command=command)))).said
    assert command in said
    assert "cdm sweep --out sweep" in said


def test_a_race_that_is_not_over_says_so_and_one_without_a_round_has_no_page(tmp_path):
    begun = raced(conclusion="", rounds=raced().rounds[:1])
    read = Read(make_page(written(tmp_path, begun)))
    assert "The race is not over: 2 of 3 points may be the best." in read.words
    with pytest.raises(MissingError, match="has no judged point yet"):
        make_page(written(tmp_path, raced(rounds=(), conclusion="")))


def test_a_race_of_another_sweep_is_not_shown(tmp_path):
    with pytest.raises(MissingError):
        make_page(written(tmp_path, raced(sweep="0" * 64)))


def test_words_of_strangers_stay_words():
    asked = raced(asked="<script>")
    made = page.join(tell_race(asked, {"stage": "<b>"}))
    assert "<script>" not in made
    assert "<b>" not in made
