"""Mirrors race.py, course.py, racers.py and race_{judge,file,table}.py of cdm_cli/jobs/sweep.

A race has the images of the grid, fewer of them.
"""

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cdm_cli.cascade.snapshot import save_best
from cdm_cli.data.lock import hold_directory
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.sampling.fill import Engine
from cdm_cli.jobs.sweep import race
from cdm_cli.jobs.sweep.race_file import RaceFile
from cdm_cli.jobs.sweep.race_judge import RaceJudge, Remembering
from cdm_cli.jobs.sweep.race_table import RaceTable, conclude_race, say_why_it_ended
from cdm_cli.jobs.sweep.racers import find_step
from cdm_cli.jobs.sweep.sweep import plan, run
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import BEFORE, plan_rounds
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from tests.asking import as_typed, type_advice
from tests.jobs.pictures.reading import Read
from tests.jobs.sweep import sweeping
from tests.jobs.sweep.sweeping import JUDGE, NUM_VAL, files, judged_images, write_workspace
from tests.tiny import Told, arrays_of, net_of, sr_config, write_store

NUM, STEPS = 300, 3  # images, and evaluations of one
TIMES = (0, 3, 5, 9)
BUDGET = 900 * STEPS  # 225 images of each, in four rounds
SWEEP = Path("sweep")
FAR = 9  # the s of a point that is beaten


def options(**changes):
    asked = {"s": TIMES, "augments": ("non-truncated",), "judge": JUDGE, "race": True}
    budget = {} if "budget" in changes else {"budget_evals": BUDGET}
    return as_typed(SweepSOptions, **(asked | budget | changes))


def grid(**changes):
    return options(race=False, budget_evals=None, **changes)


@pytest.fixture(autouse=True)
def _far(monkeypatch):
    """One point is far worse than the others, by every image."""
    judge = RaceJudge.estimate

    def judged(self, point, num):
        found, more = judge(self, point, num), 1e-3 * (point.s == FAR)
        return Estimate(found.value + more, tuple(one + more for one in found.without))

    monkeypatch.setattr(RaceJudge, "estimate", judged)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    directory = tmp_path_factory.mktemp("race")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(sweeping, "NUM", NUM)
        write_workspace(directory, sr_config(4, 8))
    return directory


@pytest.fixture
def workspace(home, tmp_path, monkeypatch):
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")


def course():
    return json.loads((SWEEP / "race.json").read_text())


def images(path, num=None):
    with open_store(path) as store:
        return store.parts[""].images(8)[:num].copy()


def test_one_round_is_called_so(workspace):
    told = Told()
    run(options(s=(0, 3), budget_evals=70 * STEPS), told)
    assert any(line.endswith("in 1 round at most") for line in told.lines)


def test_a_point_that_is_beaten_gets_no_more_images(workspace):
    told = Told()
    found = run(options(), told)
    rounds = course()["rounds"]
    assert [one["num"] for one in rounds] == [99, 165, 198, 264]
    assert [one["s"] for one in course()["left"]] == [0, 3, 5]
    assert found.left == ("s = 0", "non-truncated s = 3", "non-truncated s = 5")
    gone = rounds[0]["points"][-1]
    assert (gone["point"]["s"], gone["verdict"]) == (FAR, "beaten")
    assert gone["difference"] == pytest.approx(1e-3, rel=0.01)
    line = next(line for line in told.lines if "s = 9 is beaten" in line)
    assert line.startswith("sweep-s: round 1: non-truncated s = 9 is beaten by 0.001 ± ")
    assert len(rounds[1]["points"]) == 3
    assert found.evaluations == STEPS * (4 * 99 + 3 * 165) <= BUDGET
    assert found.made == found.evaluations
    assert found.grid == STEPS * 4 * NUM
    assert found.page == SWEEP / "report.html"
    words = Read(found.page.read_bytes()).words
    assert found.conclusion in words
    assert "Race of sr on lowres.h5" in words
    assert found.conclusion == (
        "3 of 4 points may be the best by FID against train, for 2673 evaluations, 74.2 % of the "
        "grid's 3600: s = 0, non-truncated s = 3 and non-truncated s = 5."
    )
    lines = found.table.lines()
    assert [(line[1], line[4], line[5]) for line in lines] == [
        ("0", "264", ""), ("3", "264", ""), ("5", "264", ""), ("9", "99", "1"),
    ]  # fmt: skip
    assert lines[-1][-1].startswith("beaten by 0.001 ± ")


def drawn(monkeypatch, theta, seed):
    """Judge by numbers that are drawn: theta of each s, and noise of each image."""

    def judged(self, point, num):
        x = theta[point.s] + np.random.default_rng((seed, point.s)).normal(size=NUM)[:num]
        without = [np.delete(x, np.s_[g::10]).mean() for g in range(10)]
        return Estimate(float(x.mean()), tuple(map(float, without)))

    monkeypatch.setattr(RaceJudge, "estimate", judged)


def test_a_point_that_the_rest_would_hardly_beat_is_paused_and_may_be_the_best(
    workspace, monkeypatch
):
    drawn(monkeypatch, {0: 0.0, 3: 0.0, 5: 0.0, FAR: 0.25}, seed=21)
    told = Told()
    found = run(options(), told)
    first, *_, last = course()["rounds"]
    assert [one["point"]["s"] for one in first["points"] if one["paused"]] == [3]
    assert first["points"][1]["verdict"] == "may be the best"
    assert [one["point"]["s"] for one in last["points"]] == [0, 5, FAR]
    assert [one["s"] for one in course()["left"]] == [0, 3, 5]
    line = "sweep-s: round 1: non-truncated s = 3 is paused: what is left goes to others"
    assert line in told.lines
    assert any("may be the best after 99 images each," in one for one in told.lines)
    assert any("after 264 images of each that raced," in one for one in told.lines)
    assert found.table.lines()[1][-1] == "may be the best, paused"
    assert "may be the best, paused" in Read(found.page.read_bytes()).words
    paused = images(SWEEP / "non-truncated-s0003.h5")
    assert paused[:99].any()
    assert not paused[99:].any()


def test_paused_points_race_again_where_the_others_have_all_images(workspace, monkeypatch):
    drawn(monkeypatch, {0: 0.0, 3: 0.0, 5: 0.0, FAR: 0.25}, seed=25)
    told = Told()
    run(options(budget_evals=1100 * STEPS), told)
    first, *_, last = course()["rounds"]
    assert [one["point"]["s"] for one in first["points"] if one["paused"]] == [0]
    assert (last["num"], [one["point"]["s"] for one in last["points"]]) == (NUM, [0, 3, 5])
    assert [one["s"] for one in course()["left"]] == [3, 5]
    assert images(SWEEP / "none-s0000.h5").any((1, 2, 3)).all()
    assert not any("are left:" in line for line in told.lines)


def test_it_says_why_a_part_of_the_budget_is_left(workspace, monkeypatch):
    drawn(monkeypatch, {0: 0.0, 3: 0.0, 5: 0.0, FAR: 0.25}, seed=21)
    told = Told()
    run(options(budget_evals=1000 * STEPS), told)
    assert told.lines[-1] == (
        "sweep-s: 210 of 3000 evaluations are left: too few to bring a paused point to 300 images"
    )
    file = RaceFile.model_validate(course())
    assert file.plan is not None
    old = file.model_copy(update={"plan": replace(file.plan, wakes=False)})
    assert say_why_it_ended(old) == "in a race of an earlier version, paused ones wait"
    early = file.model_copy(update={"rounds": file.rounds[:1]})  # it pauses one of four
    assert say_why_it_ended(early) == (
        "too few for another 33 images of each of the 3 that are not paused"
    )
    alone = file.model_copy(update={"left": file.left[:1]})
    assert say_why_it_ended(alone) == "one point is left, there is nothing to compare"


def test_it_does_not_say_that_points_have_all_images_where_the_last_round_is_over(workspace):
    """One is beaten in it: another step of images of the others would be paid for."""
    told = Told()
    run(options(budget_evals=STEPS * (4 * 66 + 3 * 34)), told)
    assert [one["num"] for one in course()["rounds"]] == [66]
    assert told.lines[-1] == (
        "sweep-s: 306 of 1098 evaluations are left: the last round is over, and they are too few "
        "for another 33 images of each of its 4 points"
    )


def sampled(monkeypatch):
    """Return a list of how many samples each batch of a sweep holds."""
    sizes, batch = [], Engine.make_batch

    def counted(self, samples, meter):
        sizes.append(len(samples.ids))
        return batch(self, samples, meter)

    monkeypatch.setattr(Engine, "make_batch", counted)
    return sizes


def test_a_grid_goes_on_with_a_race_and_a_race_reads_a_grid(workspace, monkeypatch):
    run(grid(out="other"), Told())
    run(options(), Told())
    assert not list(SWEEP.glob("*-s*.json"))
    for path in sorted(SWEEP.glob("*.h5")):
        num = 99 if "0009" in path.name else 264
        np.testing.assert_array_equal(images(path, num), images(Path("other") / path.name, num))
        assert not images(path)[num:].any()
    before, sizes = course(), sampled(monkeypatch)
    assert plan(grid(), Told())["disk_bytes"] == 0
    run(grid(), Told())
    assert sum(sizes) == 3 * (NUM - 264) + (NUM - 99)
    for path in sorted(SWEEP.glob("*.h5")):
        np.testing.assert_array_equal(images(path), images(Path("other") / path.name))
    again = json.loads((SWEEP / "sweep.json").read_text())["rows"]
    there = json.loads(Path("other/sweep.json").read_text())["rows"]
    assert [row["value"] for row in again] == [row["value"] for row in there]
    found = run(options(out="other"), Told())
    assert (found.made, found.evaluations) == (0, before["rounds"][-1]["evaluations"])
    assert json.loads(Path("other/race.json").read_text())["rounds"] == before["rounds"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("evaluations", [500, 1300])
def test_a_race_that_is_killed_ends_in_the_same_bytes(workspace, evaluations):
    """In the first round, and in the second."""

    def kill(done):
        if done >= evaluations:
            raise KilledError

    run(options(out="other"), Told())
    with pytest.raises(KilledError):
        run(options(out="sweep"), Told(kill))
    run(options(), Told())
    there, here = files(Path("other")), files(SWEEP)
    assert here.keys() == there.keys()
    for name in here:
        assert here[name] == there[name].replace(b"--out other", b"--out sweep"), name


def test_a_signal_while_the_last_point_of_a_round_is_judged_ends_the_race(workspace, monkeypatch):
    judge, judged = RaceJudge.estimate, []

    def asks(self, point, num):
        judged.append(num)
        if len(judged) == len(TIMES):
            os.kill(os.getpid(), signal.SIGTERM)
        return judge(self, point, num)

    with monkeypatch.context() as patch:
        patch.setattr("cdm_cli.signals._ours", [True])
        patch.setattr(RaceJudge, "estimate", asks)
        with pytest.raises(StoppedError, match="stopped by SIGTERM"):
            run(options(), Told())
    assert len(course()["rounds"]) == 1
    assert len(course()["numbers"]) == len(TIMES)


def test_a_race_has_its_directory_alone(workspace):
    """Two would write over each other's numbers; a grid would hold its stores."""
    SWEEP.mkdir()
    with hold_directory(SWEEP, alone=False), pytest.raises(StoppedError) as error:
        run(options(), Told())
    assert "another job works in sweep: process" in str(error.value)
    assert not (SWEEP / "race.json").exists()


def test_numbers_of_a_race_that_ended_meanwhile_are_taken(workspace, monkeypatch):
    open_panel_and_stage = race.open_panel_and_stage

    def wait(*asked):
        monkeypatch.setattr(race, "open_panel_and_stage", open_panel_and_stage)
        run(options(), Told())
        return open_panel_and_stage(*asked)

    monkeypatch.setattr(race, "open_panel_and_stage", wait)
    assert run(options(budget_evals=BUDGET + STEPS), Told()).made == 0


def test_a_race_of_an_earlier_version_ends_by_its_own_rules(workspace, monkeypatch):
    """Its file has no plan; it looked at two thirds of this budget first, and paused nothing."""

    def kill(done):
        if done >= 1700:  # in the second round
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("cdm_cli.jobs.sweep.race.plan_rounds", partial(plan_rounds, way=BEFORE))
        with pytest.raises(KilledError):
            run(options(), Told(kill))
    there = course()
    assert there.pop("plan")["ends"] == [2 / 3, 1]
    for round_ in there["rounds"]:
        assert not any(one.pop("paused") for one in round_["points"])
    (SWEEP / "race.json").write_text(json.dumps(there))
    run(options(), Told())
    assert [one["num"] for one in course()["rounds"]] == [132, 231]
    run(options(budget_evals=BUDGET + 1), Told())
    assert [one["num"] for one in course()["rounds"]] == [99, 165, 198, 264]


def test_a_race_that_is_over_does_nothing(workspace, monkeypatch):
    first = run(options(), Told())
    before, seen = files(SWEEP), judged_images(monkeypatch)
    found = run(options(), Told())
    assert (found.conclusion, found.made, seen) == (first.conclusion, 0, [])
    assert files(SWEEP) == before


def test_a_damaged_race_is_run_again_as_its_error_advises(workspace):
    """On the images that are there."""
    run(options(), Told())
    before = files(SWEEP)
    (SWEEP / "race.json").write_bytes(b"{}")
    with pytest.raises(BadInputError, match=r"race\.json: ") as error:
        run(options(), Told())
    type_advice(error.value)
    assert run(options(), Told()).made == 0
    assert files(SWEEP) == before


def test_what_was_judged_serves_another_budget(workspace, monkeypatch):
    run(options(), Told())
    found = run(options(budget_evals=4 * 300 * STEPS), Told())
    assert [one["num"] for one in course()["rounds"]] == [132, 231, 264, 300]
    assert found.made < found.evaluations
    seen = judged_images(monkeypatch)
    run(options(), Told())
    assert seen == []


def test_a_time_becomes_evaluations_once(workspace, monkeypatch):
    rates = iter([BUDGET / 60, 1.0])
    monkeypatch.setattr("cdm_cli.jobs.sweep.course.measure_rate", lambda *_: next(rates))

    def kill(done):
        if done >= 500:
            raise KilledError

    with pytest.raises(KilledError):
        run(options(budget="1m"), Told(kill))
    run(options(budget="1m"), Told())
    assert (course()["asked"], course()["evaluations"]) == ("1m", BUDGET)
    assert course()["per_second"] == BUDGET / 60
    assert [one["num"] for one in course()["rounds"]] == [99, 165, 198, 264]
    assert course()["plan"]["ends"] == [0.5, 0.7, 0.85, 1]
    with pytest.raises(UsageError, match="2s, 2 evaluations, is too small for a first ro") as error:
        run(options(budget="2s"), Told())
    assert error.value.next == f"--budget {33 * 4 * STEPS}s"


def test_a_conclusion_says_what_is_left_and_what_it_took(workspace):
    run(options(), Told())
    file = RaceFile.model_validate(course())
    one = file.model_copy(update={"left": file.left[:1]})
    everyone = file.model_copy(update={"left": file.points})
    assert conclude_race(one).startswith(
        "s = 0 is the best of 4 points by FID against train, for 2673"
    )
    assert conclude_race(everyone).startswith(
        "By FID against train any of the 4 points may be the best, "
    )
    assert [len(RaceTable(some).gather_notes()) for some in (file, everyone)] == [2, 1]


def test_the_rate_is_that_of_a_second_batch(workspace):
    found = run(options(budget="1h"), Told())
    assert course()["per_second"] > 0
    assert course()["evaluations"] == found.grid == STEPS * 4 * NUM
    assert found.table.lines()[0][4] == "300"


def test_a_budget_beyond_the_grid_is_that_of_the_grid(workspace):
    """Else the first look would be at all images of all points, and nothing be saved."""
    told = plan(options(budget_evals=10**9), Told())
    assert told["network_evaluations"] == told["evaluations_of_the_grid"] == STEPS * 4 * NUM
    found = run(options(budget_evals=10**9), Told())
    assert course()["asked"] == "1000000000 evaluations"
    assert len(course()["rounds"][-1]["points"]) < 4
    assert found.evaluations < found.grid


@pytest.mark.parametrize(
    ("changes", "what", "advice"),
    [
        ({"s": (0,)}, "s = 0 is the only point", "more values, or leave --race out"),
        ({"budget_evals": 60}, "4 points with 33 images each take 396", "--budget-evals 396"),
    ],
)
def test_what_is_no_race_is_said_before_weights_are_loaded(
    workspace, monkeypatch, changes, what, advice
):
    def loaded(*_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    for job in (run, plan):
        with pytest.raises(UsageError, match=what) as error:
            job(options(**changes), Told())
        assert error.value.next == advice
    assert not SWEEP.exists()


def test_a_dry_run_says_what_a_race_costs(workspace):
    told = plan(options(), Told())
    assert (told["network_evaluations"], told["rounds"], told["first_round"]) == (BUDGET, 4, 99)
    assert told["evaluations_of_the_grid"] == STEPS * 4 * NUM
    # Stores are of their final size at once.
    assert told["disk_bytes"] == 4 * NUM * (8 * 8 * 3 + 16) == plan(grid(), Told())["disk_bytes"]
    assert "network_evaluations" not in plan(options(budget="1m"), Told())


def test_points_of_several_costs_race(workspace):
    asked = as_typed(
        SweepOptions, axes=("s=0,9", "steps=1,3"), augments=("non-truncated",), judge=JUDGE,
        race=True, budget_evals=1600,
    )  # fmt: skip
    found = run(asked, Told())
    assert course()["costs"] == [1, 1, 3, 3]
    assert found.evaluations <= 1600
    assert all(one["s"] == 0 for one in course()["left"])


@pytest.mark.parametrize("budget", [BUDGET, BUDGET + STEPS], ids=["over", "another budget"])
def test_what_was_judged_of_other_weights_is_of_another_race(workspace, budget):
    """An axis names weights or a schedule; what the name stands for may have changed since."""
    asked = as_typed(
        SweepOptions, axes=("s=3", "weights=best,ema"), augments=("non-truncated",), judge=JUDGE,
        race=True, budget_evals=BUDGET,
    )  # fmt: skip
    stage, config = Path("runs/sr"), sr_config(4, 8)
    save_best(stage, net_of(config, 5).state_dict(), 2, "{}")
    run(asked, Told())
    before = course()
    for path in SWEEP.glob("*.h5"):
        path.unlink()
    save_best(stage, net_of(config, 6).state_dict(), 3, "{}")
    with pytest.raises(WouldOverwriteError, match=r"race\.json is of another sampling: w"):
        run(replace(asked, budget_evals=budget), Told())
    assert course() == before


def test_images_that_are_sorted_by_class_are_no_race(workspace):
    arrays = arrays_of(NUM, [4, 8])
    arrays["labels"] = np.sort(arrays["labels"])
    write_store(Path("sorted.h5"), "samples", {"": arrays})
    with pytest.raises(MismatchError, match=r"whose first \d+ are of other classes"):
        run(options(lowres="sorted.h5"), Told())


def test_a_round_whose_images_lack_classes_says_so(workspace):
    """The last class comes late, as where a store was joined to another."""
    arrays, place = arrays_of(NUM, [4, 8]), np.arange(NUM)
    arrays["labels"] = np.where((place >= 200) & (place % 5 == 0), 2, place % 2)
    write_store(Path("joined.h5"), "samples", {"": arrays})
    told = Told()
    run(options(lowres="joined.h5"), told)
    said = [line for line in told.lines if " images each" in line and "after" not in line]
    lacking = [line.endswith("images each, which lack 1 of the classes") for line in said]
    kept = [
        one.get("lacking", 0) for one in json.loads((SWEEP / "race.json").read_text())["rounds"]
    ]
    assert lacking[0]
    assert not lacking[-1]
    assert kept == [int(one) for one in lacking]


def test_a_round_has_whole_rounds_of_the_classes():
    assert find_step(np.arange(300) % 10) == 40
    assert find_step(np.arange(300) % 3) == 33
    assert find_step(np.arange(3000) % 1000) == find_step(np.arange(1500) % 1000) == 1000
    assert find_step(np.zeros(300, np.int64)) == 32
    assert find_step(np.random.default_rng(0).integers(0, 10, 300)) == 32


def test_a_batch_that_an_earlier_round_judged_is_not_judged_again(workspace, monkeypatch):
    """A batch has 32 images; the last one of a round is short, and other in the next round."""
    seen = judged_images(monkeypatch)
    run(options(), Told())
    last_batches = [num % 32 for num in (99, 165, 198, 264)]
    assert sum(seen) == 30 + NUM_VAL + 3 * (264 // 32 * 32 + sum(last_batches)) + 99


class Reusing:
    """An extractor that gives its features in the same memory each time."""

    name, digest, feature_dim, resize = "reusing", "", 3, ""

    def __init__(self):
        self.calls, self._given = 0, torch.zeros(4, 3)

    def __call__(self, images):
        self.calls += 1
        return self._given.fill_(float(images[0, 0, 0, 0])), None


def test_what_is_remembered_of_images_is_bounded_and_no_memory_of_the_extractor():
    extractor, known = Reusing(), {}
    judge = Remembering(extractor, known, "s0.h5", most=2 * 4 * 3 * 4)
    batches = [torch.full((4, 3, 2, 2), value, dtype=torch.uint8) for value in (1, 2, 3)]
    for batch in batches:
        judge(batch)
    assert [float(judge(batch)[0][0, 0]) for batch in batches] == [1, 2, 3]
    assert extractor.calls == 4  # the third was not kept
    assert sum(kept.untyped_storage().nbytes() for kept in known.values()) == 2 * 4 * 3 * 4
    Remembering(extractor, known, "s5.h5", most=0)(batches[0])  # of another point
    assert extractor.calls == 5
