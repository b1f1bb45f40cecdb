"""Mirrors cdm_cli/jobs/sweep/page.py and over.py: what a person reads of a sweep."""

import json
from pathlib import Path

import pytest

from cdm_cli.errors import MissingError
from cdm_cli.jobs.sweep import over
from cdm_cli.jobs.sweep.choice import Chosen, say_how_chosen
from cdm_cli.jobs.sweep.page import make_page, name_subject
from cdm_cli.jobs.sweep.plan import make_mark
from cdm_cli.jobs.sweep.race_file import RaceFile, RoundFile, Standing, write_race
from cdm_cli.jobs.sweep.sweep import run
from cdm_cli.jobs.sweep.table import read_points, read_sweep
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from tests.asking import as_typed
from tests.jobs.pictures.reading import Read
from tests.jobs.sweep.sweeping import JUDGE, files
from tests.tiny import Told

SWEEP, PAGE = Path("sweep"), Path("sweep/report.html")
FEW = {"s": (0, 5), "num": 20, "judge": JUDGE, "ground_truth": True}


pytestmark = pytest.mark.usefixtures("workspace")


def swept(told=None, options=SweepSOptions, **changes):
    return run(as_typed(options, **(FEW | changes)), told or Told())


def test_a_sweep_leaves_a_page_that_says_what_it_found():
    read = Read(PAGE.read_bytes())
    found = json.loads((SWEEP / "sweep.json").read_text())
    assert found["conclusion"] in read.words
    assert found["command"] in read.said
    assert f"{found['command']} --apply" in read.said
    for row in found["rows"]:
        assert f"{row['value']:.5g}" in read.words
    assert {parent["digest"] for parent in found["parents"]} <= {*read.words}
    assert "cdm upsample lowres.h5 --model runs/sr --s 5 --augment truncated" in read.said


def test_it_shows_the_plot_and_the_same_images_over_s_for_each_kind():
    plot, *kinds = Read(PAGE.read_bytes()).images
    assert "FID against train" in plot
    assert kinds == [
        f"{kind}: the same images, over s"
        for kind in ("truncated", "non-truncated", "ground-truth")
    ]


@pytest.fixture
def laid(monkeypatch):
    """What is laid out side by side: names of stores with their resolution, and heads."""
    found = []
    real = over.lay_side_by_side

    def beside(shown, heads, **more):
        names = [f"{one.store.path.name} {one.resolution}" for one in shown]
        found.append(dict(zip(heads, names, strict=True)))
        return real(shown, heads, **more)

    monkeypatch.setattr(over, "lay_side_by_side", beside)
    return found


def test_columns_are_the_input_each_s_and_of_real_images_the_truth(laid):
    make_page(SWEEP)
    kept, fresh, real = laid
    assert kept == {
        "input": "lowres.h5 4", "s = 0": "none-s0000.h5 8", "s = 5": "truncated-s0005.h5 8",
    }  # fmt: skip
    assert fresh["s = 5"] == "non-truncated-s0005.h5 8"
    assert real == {
        "input": "data.h5 4", "s = 0": "ground-truth-s0000.h5 8",
        "s = 5": "ground-truth-s0005.h5 8", "real": "data.h5 8",
    }  # fmt: skip


def test_other_axes_are_columns_where_s_is_one(laid):
    swept(
        options=SweepOptions, axes=("steps=2,3",), s=(5,), augments=("non-truncated",), out="grid",
        ground_truth=False,
    )  # fmt: skip
    assert [*laid[-1]] == ["input", "steps = 2", "steps = 3"]


def test_what_is_gone_is_said_and_the_rest_is_shown():
    (SWEEP / "truncated-s0005.h5").unlink()
    Path("lowres.h5").unlink()
    (SWEEP / "sweep.png").unlink()
    read = Read(make_page(SWEEP))
    assert "no picture of truncated: sweep/truncated-s0005.h5 does not exist" in read.said
    assert len(read.images) == 2


def test_the_same_sweep_leaves_the_same_page():
    before = files(SWEEP)
    swept()
    assert files(SWEEP) == before


def test_a_page_of_something_else_is_left_alone():
    PAGE.write_text("mine")
    told = Told()
    swept(told)
    assert PAGE.read_text() == "mine"
    assert any("report.html exists and is no report" in line for line in told.lines)


def test_names_in_its_files_reach_nothing_but_the_page(tmp_path):
    """A point says where its samples are: only in the directory of the sweep."""
    (SWEEP / "none-s0000.h5").rename(tmp_path / "none-s0000.h5")
    path = SWEEP / "none-s0000.json"
    point = json.loads(path.read_text()) | {"samples": "../../none-s0000.h5"}
    path.write_text(json.dumps(point | {"notes": ["<script>"]}))
    read = Read(make_page(SWEEP))
    assert "no picture of truncated: sweep/none-s0000.h5 does not exist" in read.said
    assert "<script>" in read.words


def test_a_race_among_its_points_that_is_not_over_says_so():
    swept()
    numbers = {"command": "cdm sweep --race", "sweep": make_mark(read_sweep(SWEEP).identity)}
    points = ({"augment": "none", "s": 0}, {"augment": "truncated", "s": 5})
    stands = [Standing(point=one, verdict="", difference=0.1, uncertainty=0.1) for one in points]
    begun = RaceFile(
        **numbers, asked="9 evaluations", evaluations=9, points=points, costs=(3, 3), num=9, step=3,
        grid=54, left=points,
        rounds=(RoundFile(round=1, num=3, level=0.01, evaluations=9, against=points[0],
                          points=tuple(stands)),),
    )  # fmt: skip
    write_race(SWEEP, begun)
    page = make_page(SWEEP).decode()
    assert "<summary>The race is not over: 2 of 2 points may be the best.</summary>" in page


def test_the_flags_of_the_chosen_point_are_those_that_make_its_images():
    chosen = {"reference": "train", "value": 1.0, "uncertainty": None}
    told = say_how_chosen(Chosen(augment="truncated", s=5, **chosen))
    assert "cdm sample --keep-s 5, then cdm upsample --s 5 --augment truncated, with" in told
    axes = {"schedule": "my schedules/8.json", "clip": False}
    told = say_how_chosen(Chosen(augment="non-truncated", s=5, axes=axes, **chosen))
    flags = "--s 5 --schedule 'my schedules/8.json' --no-clip"
    assert f"(cdm sample, then cdm upsample {flags}, with another --seed)" in told


def test_a_sweep_without_a_point_has_no_page():
    for point in SWEEP.glob("*-s*.json"):
        point.unlink()
    with pytest.raises(MissingError, match="no judged point"):
        make_page(SWEEP)


def test_it_is_of_the_sweep_whatever_the_directory_is_called():
    subject = name_subject(SWEEP)
    assert read_points(SWEEP, judged_in_mark())
    SWEEP.rename("moved")
    assert name_subject(Path("moved")) == subject


def judged_in_mark():
    return json.loads((SWEEP / "none-s0000.json").read_text())["sweep"]
