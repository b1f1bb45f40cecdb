"""Mirrors cdm_cli/jobs/curve/curve.py and table.py.

Every checkpoint is judged once, and alike.

Here too: plan.py.
"""

import csv
import json
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cdm_cli.cascade.saved import remove_checkpoint
from cdm_cli.commands._render import make_plain, write_lines
from cdm_cli.data.lock import hold_directory
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    NotFiniteError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.curve import curve
from cdm_cli.jobs.curve import plan as curve_plan
from cdm_cli.jobs.curve.curve import plan, run
from cdm_cli.jobs.curve.plan import find_states
from cdm_cli.jobs.curve.table import (
    CurvePoint,
    SavedWeights,
    compare_points,
    draw_curve,
    make_table,
    name_point,
)
from cdm_cli.metrics.table import Convention, MetricRow
from cdm_cli.options.judging import CurveOptions, FeatureOptions
from cdm_cli.options.sampling import Compute, Sampling
from tests.asking import as_typed, type_advice
from tests.jobs.judging.making import counted, write_judge
from tests.tiny import Told, arrays_of, write_store
from tests.trained import SR, rows, train, write_data

CPU = Compute(device="cpu", batch_size=8)
JUDGE = as_typed(FeatureOptions, features="judge", compute=CPU)
SELECT = {"select": "fid", "select_num": 6, "select_every": 2, "features": "judge"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base stage with checkpoints of steps 2, 4 and 5, selected by FID; an SR stage."""
    home = tmp_path_factory.mktemp("trained")
    write_data(home / "data.h5")
    write_judge(home / "runs/judge")
    train(home, "training.keep=9", **SELECT)
    train(home, preset="tiny-sr8-16", small=SR, name="sr", steps=2)
    return home


@pytest.fixture(autouse=True)
def home(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.h5").symlink_to(trained / "data.h5")
    (tmp_path / "data.h5.stats").symlink_to(trained / "data.h5.stats")
    (tmp_path / "runs").symlink_to(trained / "runs")
    return tmp_path


def options(**changes):
    return as_typed(CurveOptions, **({"num": 6, "judge": JUDGE} | changes))


def points():
    return json.loads(Path("curve/curve.json").read_text())["points"]


def test_scores_are_those_of_training_and_the_best_is_its_best(trained):
    result = run(options(), Told())
    logged = [row for row in rows(trained / "runs/base") if "fid_train" in row]
    found = {(row.extra["step"], row.reference): row.value for row in result.table.rows}
    for row in logged:
        for name in ("train", "val"):
            assert found[row["step"], name] == pytest.approx(row[f"fid_{name}"], rel=1e-4)
    assert len(found) == 2 * len(logged) == 6
    best = min(logged, key=lambda row: row["fid_train"])
    assert result.best == f"step-0000000{best['step']}"
    assert result.best_step == best["step"]
    assert result.best_fid == pytest.approx(best["fid_train"], rel=1e-4)
    assert result.samples["steps"] == 3


def test_table_and_picture_are_files():
    result = run(options(), Told())
    assert [point["saved"]["step"] for point in points()] == [2, 4, 5]
    with open("curve/curve.csv") as file:
        records = list(csv.DictReader(file))
    assert [(r["step"], r["reference"]) for r in records[:2]] == [("2", "train"), ("2", "val")]
    assert float(records[0]["value"]) == result.table.rows[0].value
    assert all(row.uncertainty is not None for row in result.table.rows)
    kept = [row for point in points() for row in point["rows"]]
    assert {len(row["without"]) for row in kept} == {6}  # of six images each, one is left out
    assert len({row["groups"] for row in kept}) == 1
    with Image.open("curve/curve.png") as picture:
        assert picture.size == (780, 504)
    header = result.table.header()
    assert header[:5] == ["step", "weights", "metric", "value", "±"]


def test_every_checkpoint_gets_a_verdict():
    result = run(options(), Told())
    file = json.loads(Path("curve/curve.json").read_text())
    assert [one["point"]["step"] for one in file["comparisons"]] == [2, 4, 5] * 2
    assert file["comparisons"] == [asdict(one) for one in result.table.comparisons]
    assert file["conclusion"] == result.conclusion
    with open("curve/curve.csv") as stream:
        verdicts = {row["verdict"] for row in csv.DictReader(stream)}
    assert verdicts <= {"best", "as good as the best", "worse"}
    assert result.table.header()[-1] == "verdict"
    said = "\n".join(write_lines(result))
    assert "best step" not in said
    assert result.conclusion in said
    assert make_plain(result)["best_step"] == result.best_step


def of(step, value, noise):
    """A point whose leave-out values all have the same noise but for a little."""
    row = MetricRow(
        metric="fid", value=value, reference="train", groups="mark" if len(noise) else "",
        without=tuple(value + np.array(noise)), extra={"step": step, "weights": f"step-{step}"},
        convention=Convention(
            num=20, balance="", extractor="x", extractor_digest="", resize="", resolution=8
        ),
    )  # fmt: skip
    saved = SavedWeights(weights=f"step-{step}", step=step, sha256="0")
    return CurvePoint(saved=saved, rows=(row,), notes=())


def test_no_checkpoint_is_crowned_within_the_noise(monkeypatch):
    a, b, c = np.random.default_rng(0).normal(size=(3, 10))
    near = [of(1, 9.0, a), of(2, 3.0, a + 0.1 * b), of(3, 3.01, a + 0.1 * c)]
    drawn = []
    monkeypatch.setattr(Axes, "axhspan", lambda self, low, high, **_: drawn.append((low, high)))
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title: titles.append(title))
    for points in (near, near[:2], [*near, of(4, 2.0, ())]):
        draw_curve(points)
    assert drawn == [(3.0, 3.01), (3.0, 3.0)]
    assert titles == [
        "as good as the best by FID against train: 2 of 3 points",
        "best by FID against train: step-2",
        "lowest FID against train: step-4",
    ]
    assert compare_points(near).standing == "as good as the best"
    assert "all but step-1 (worse by" in compare_points(near).conclude(name_point)
    table = make_table([*near, of(4, 2.0, ())])
    assert table.comparisons == []
    assert "no verdicts by FID against train: 1 of 4" in table.notes[0]


def test_what_is_judged_is_not_judged_again_and_others_join(monkeypatch):
    run(options(weights=("step-00000004",)), Told())
    first, seen = points()[0], counted(monkeypatch)
    run(options(weights=("step-00000002", "step-00000004")), Told())
    assert sum(seen) == 6
    assert [point["saved"]["weights"][-1] for point in points()] == ["2", "4"]
    assert points()[1] == first
    seen.clear()
    run(options(weights=("step-00000002",)), Told())
    assert sum(seen) == 0
    assert len(points()) == 2


def test_weights_that_changed_under_their_name_are_judged_anew(home, trained):
    train(trained, name="grows", steps=2)
    run(options(stage="grows", weights=("ema",)), Told())
    before = points()[0]
    train(trained, name="grows", steps=3)
    run(options(stage="grows", weights=("ema",)), Told())
    (after,) = points()
    assert (before["saved"]["step"], after["saved"]["step"]) == (2, 3)
    assert before["rows"][0]["value"] != after["rows"][0]["value"]


def test_states_are_named_and_come_in_the_order_of_steps(trained):
    base = trained / "runs/base"
    names = [state.weights for state in find_states(base, ("ema", "all", "step-00000002"))]
    assert names == ["step-00000002", "step-00000004", "ema", "step-00000005"]
    assert "best" in [state.weights for state in find_states(base, ("best",))]
    with pytest.raises(MissingError, match="step-00000003"):
        find_states(base, ("step-00000003",))
    with pytest.raises(UsageError, match="last"):
        find_states(base, ("last",))
    with pytest.raises(MissingError, match="has no checkpoint"):
        find_states(trained / "runs/judge", ("all",))


def test_an_sr_stage_is_judged_on_real_images_at_s():
    result = run(options(stage="sr", s=7), Told())
    assert (result.samples["s"], result.samples["lowres"]) == (7, "val")
    with pytest.raises(UsageError, match="12 images in val"):
        run(options(stage="sr", num=13), Told())
    with pytest.raises(UsageError, match=r"s = 0\.\.20"):
        run(options(stage="sr", s=21), Told())
    judge = replace(JUDGE, ref=Path("numbers.npz"))
    with pytest.raises(UsageError, match="enlarges real images"):
        run(options(stage="sr", judge=judge), Told())
    write_store("large.h5", "prepared", {"train": arrays_of(9, (16, 32))})
    judge = replace(JUDGE, ref=Path("large.h5"))
    with pytest.raises(MismatchError, match="do not fit"):
        run(options(stage="sr", judge=judge), Told())


def test_an_sr_stage_is_judged_on_generated_images_where_they_are_named():
    write_store("low.h5", "samples", {"": arrays_of(8, (8,), seed=3)})
    result = run(options(stage="sr", s=7, lowres="low.h5"), Told())
    assert result.samples["lowres"] == "generated"
    numbers = replace(JUDGE, ref=Path("data.h5"))
    assert run(options(stage="sr", s=7, lowres="low.h5", judge=numbers), Told()).samples["s"] == 7
    with pytest.raises(WouldOverwriteError, match="lowres was generated, is val"):
        run(options(stage="sr", s=7), Told())
    write_store("other.h5", "samples", {"": arrays_of(8, (8,), seed=4)})
    with pytest.raises(WouldOverwriteError, match="lowres_digest was"):
        run(options(stage="sr", s=7, lowres="other.h5"), Told())
    with pytest.raises(UsageError, match=r"--lowres low\.h5: .*base stage"):
        run(options(lowres="low.h5"), Told())


def test_another_curve_is_not_overwritten(home):
    one = ("step-00000002",)
    run(options(weights=one), Told())
    before = (home / "curve/curve.json").read_bytes()
    with pytest.raises(WouldOverwriteError, match="--num was 6, is 7"):
        run(options(weights=one, num=7), Told())
    with pytest.raises(WouldOverwriteError, match="--steps was 3, is 2"):
        run(options(weights=one, sampling=Sampling(steps=2)), Told())
    assert (home / "curve/curve.json").read_bytes() == before
    (home / "other").mkdir()
    (home / "other/curve.png").write_bytes(b"mine")
    with pytest.raises(WouldOverwriteError, match="belongs to no curve"):
        run(options(weights=one, out="other"), Told())
    (home / "file").touch()
    with pytest.raises(WouldOverwriteError, match="needs a directory"):
        run(options(weights=one, out="file"), Told())


def test_a_stop_keeps_what_was_judged():
    per_state = 6 * 3 + 6  # evaluations drawn, and images judged

    def interfere(done):
        if done == per_state + 6:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StoppedError, match="SIGTERM at step-00000004"):
        run(options(), Told(interfere))
    assert [point["saved"]["step"] for point in points()] == [2]
    run(options(), Told())
    assert [point["saved"]["step"] for point in points()] == [2, 4, 5]


def test_one_job_at_a_time_judges_into_a_directory():
    """Two would write over each other's points."""
    Path("curve").mkdir()
    with hold_directory(Path("curve"), alone=True), pytest.raises(StoppedError) as error:
        run(options(), Told())
    assert "another job works in curve: process" in str(error.value)
    assert not Path("curve/curve.json").exists()


def test_a_damaged_curve_is_judged_again_as_its_error_advises():
    run(options(), Told())
    whole = Path("curve/curve.json").read_bytes()
    Path("curve/curve.json").write_bytes(whole[:-9])
    with pytest.raises(BadInputError, match=r"curve\.json: is no JSON") as error:
        run(options(), Told())
    type_advice(error.value)
    run(options(), Told())
    assert Path("curve/curve.json").read_bytes() == whole


@pytest.fixture
def grown(home, trained):
    """A stage of its own that a training still changes: steps 2, 4 and 5."""
    (home / "runs").unlink()
    shutil.copytree(trained / "runs", home / "runs")
    return home / "runs/base"


@pytest.mark.parametrize("done", [1, 6 * 3 + 6 + 1], ids=["the first", "a later one"])
def test_a_checkpoint_that_training_removes_meanwhile_is_passed_over(grown, done):
    """At the first advance of one state the next is removed, as `keep` does it."""
    gone = grown / "checkpoints" / ("step-00000004" if done == 1 else "step-00000005")
    told = Told(lambda now: remove_checkpoint(gone) if now >= done and gone.exists() else None)
    result = run(options(), told)
    assert f"{gone.name} was removed or replaced meanwhile: passed over" in told.lines
    assert gone.name not in [point["saved"]["weights"] for point in points()]
    assert len(points()) == 2
    assert result.best != gone.name


def test_checkpoints_that_vanish_between_listing_and_reading_are_not_missed(grown, monkeypatch):
    real = curve_plan.find_weights_file

    def rotated(directory, name):
        if name == "step-00000002":
            remove_checkpoint(directory / "checkpoints" / name)
        return real(directory, name)

    monkeypatch.setattr(curve_plan, "find_weights_file", rotated)
    assert [state.step for state in find_states(grown, ("all",))] == [4, 5]
    with pytest.raises(MissingError, match="step-00000002"):
        find_states(grown, ("step-00000002",))


def test_the_first_state_may_be_gone_before_it_is_loaded(grown, monkeypatch):
    real = curve.read_curve

    def rotated(*args):
        remove_checkpoint(grown / "checkpoints/step-00000002")
        return real(*args)

    monkeypatch.setattr(curve, "read_curve", rotated)
    run(options(), Told())
    assert [point["saved"]["step"] for point in points()] == [4, 5]


def test_where_nothing_is_left_the_same_command_looks_again(grown, monkeypatch):
    real = curve.read_curve

    def rotated(*args):
        remove_checkpoint(grown / "checkpoints/step-00000002")
        return real(*args)

    monkeypatch.setattr(curve, "read_curve", rotated)
    with pytest.raises(StoppedError, match="removed or replaced before it was judged"):
        run(options(weights=("step-00000002",)), Told())


def test_a_state_that_gives_what_is_not_finite_is_passed_over_and_told(grown, monkeypatch):
    monkeypatch.setattr(curve, "take_weights", loose(curve.take_weights))
    told = Told()
    result = run(options(), told)
    assert [point["saved"]["step"] for point in points()] == [2, 5]
    notes = result.table.gather_notes()
    assert "without step-00000004: gone meanwhile, or of images that are not finite" in notes
    assert "step-00000004 is not judged: base gives images that are not finite" in told.lines


def loose(real):
    """Let the weights of step 4 overflow once they are loaded."""

    def take(stage, directory, name):
        digest = real(stage, directory, name)
        if name == "step-00000004":
            for parameter in stage.net.parameters():
                parameter.add_(1).mul_(1e18)
        return digest

    return take


def test_where_no_state_gives_finite_images_that_is_the_error(grown, monkeypatch):
    monkeypatch.setattr(curve, "take_weights", loose(curve.take_weights))
    with pytest.raises(NotFiniteError, match="base gives images"):
        run(options(weights=("step-00000004",)), Told())
    assert not Path("curve/curve.json").exists()


def test_weights_that_are_replaced_meanwhile_are_not_judged_under_the_old_step(grown, monkeypatch):
    real = curve.read_curve

    def replaced(*args):
        newer = grown / "checkpoints/step-00000002/ema.safetensors"
        (grown / "ema.safetensors").write_bytes(newer.read_bytes())
        return real(*args)

    monkeypatch.setattr(curve, "read_curve", replaced)
    with pytest.raises(StoppedError, match="removed or replaced"):
        run(options(weights=("ema",)), Told())


def test_a_plan_loads_and_writes_nothing(home):
    few, enough = Told(), Told()
    plan(options(num=20), enough)
    assert not enough.lines
    found = plan(options(), few)
    assert few.lines[0].startswith("--num 6: errors come from ten groups")
    assert found["checkpoints"] == ["step-00000002", "step-00000004", "step-00000005"]
    assert found["network_evaluations"] == 3 * 6 * 3
    assert not (home / "curve").exists()
