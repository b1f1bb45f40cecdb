"""Mirrors cdm_cli/jobs/reporting/, and page.py of training, curve and cas that it takes.

Here too: store.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.errors import BadInputError, MissingError, UnsafeInputError, WouldOverwriteError
from cdm_cli.jobs.cas.cas import run as score
from cdm_cli.jobs.curve.curve import run as judge_checkpoints
from cdm_cli.jobs.judging.evaluate import run as evaluate
from cdm_cli.jobs.reporting.report import run
from cdm_cli.jobs.sampling.upsample import run as upsample
from cdm_cli.options.judging import CurveOptions, EvalOptions
from cdm_cli.options.sampling import Compute, UpsampleOptions
from cdm_cli.options.workspace import ReportOptions
from cdm_cli.plans import Applied, DataInfo
from tests.asking import as_typed
from tests.jobs.judging import scoring
from tests.jobs.pictures.reading import Read
from tests.jobs.sweep.sweeping import CPU, JUDGE, write_workspace
from tests.tiny import Told, in_new_folder, sr_config
from tests.trained import train, write_data

OUT = Path("report.html")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with samples and a table of numbers beside them."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        upsample(as_typed(UpsampleOptions, s=5, compute=CPU), Told())
        asked = {"metrics": ("fid",), "judge": JUDGE, "out": "table.json"}
        evaluate(as_typed(EvalOptions, **asked), Told())
    return home


@pytest.fixture(autouse=True)
def workspace(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")


def reported(path="samples.h5", **changes):
    """Return the page of a path, read."""
    return Read(run(as_typed(ReportOptions, path=path, **changes), Told()).out.read_bytes())


def test_a_store_is_shown_with_its_numbers_and_where_it_comes_from():
    read = reported()
    assert read.words[1:3] == ["samples.h5", "66 samples at 8×8."]
    assert read.images == ["samples.h5: 24 of 66 images, 8×8"]
    value = json.loads(Path("table.json").read_text())["rows"][0]["value"]
    assert {"table.json", f"{value:.5g}", "runs/sr (ema)"} <= {*read.words}
    assert "cdm upsample lowres.h5 --s 5" in read.said


def test_numbers_of_other_images_are_not_shown():
    table = json.loads(Path("table.json").read_text())
    for row in table["rows"]:
        row["convention"]["samples_digest"] = "0" * 64
    Path("table.json").write_text(json.dumps(table))
    Path("broken.json").write_text("{")
    assert "table.json" not in reported().words


def test_a_page_says_where_parents_are_as_the_workspace_names_them():
    run(as_typed(ReportOptions, path="samples.h5"), Told())
    page = Path("report.html").read_text()
    assert "lowres.h5" in page
    assert str(Path.cwd()) not in page


def test_a_prepared_store_is_shown_too():
    assert "54 prepared images at 4×4, 8×8." in reported("data.h5").words


def test_a_stage_is_shown_by_its_name():
    file = read_stage_file(Path("runs/sr"))
    found = Applied(s=5, augment="truncated", by="sweep", found=EVIL)
    data = DataInfo(**{**dict(file.data), "classes": (EVIL, "ring", "tench, Tinca tinca")})
    update = {"applied": (found,), "in_force": 1, "data": data}
    write_stage_file(Path("runs/sr"), file.model_copy(update=update))
    read = reported("sr")
    assert "A super-resolution stage from 4×4 to 8×8, at step 1 of 1." in read.words
    assert {"s = 5 truncated", EVIL, "stage.model.resolution"} <= {*read.words}
    assert f"3: {EVIL}, ring, tench, Tinca tinca" in read.words
    assert read.images == []


def test_a_run_shows_its_losses_samples_and_checkpoints(tmp_path, monkeypatch):
    home = tmp_path / "training"
    home.mkdir()
    monkeypatch.chdir(home)
    write_data(home / "data.h5", num_val=24)
    train(home, "training.grid_every=2", "training.keep=5", steps=4)
    train(home, name="judge", preset="tiny-classifier", small=(), steps=1)
    judge = {"features": "judge", "compute": Compute(device="cpu", batch_size=8)}
    judge_checkpoints(as_typed(CurveOptions, stage="base", num=20, judge=judge), Told())
    read = reported("runs/base")
    assert "A base stage of 8×8, at step 4 of 4." in read.words
    loss, last, earlier, curve = read.images
    assert (loss, last) == ("loss of the steps that were logged", "step-00000004")
    assert earlier == "step-00000002"
    assert "FID" in curve
    found = json.loads(Path("curve/curve.json").read_text())
    assert found["conclusion"] in read.words
    for point in found["points"]:
        assert point["saved"]["sha256"] in read.words
    for picture in ("curve/curve.png", "runs/base/samples/step-00000004.png"):
        Path(picture).rename("kept")
        Path(picture).symlink_to(home / "kept")
        with pytest.raises(UnsafeInputError, match="is not a regular file"):
            reported("runs/base", out="other.html")
        Path("kept").replace(picture)


def test_a_curve_of_another_training_is_left_out(tmp_path):
    Path("curve").mkdir()
    Path("curve/curve.json").write_text('{"identity": {"stage": "0"}}')
    assert "Checkpoints" not in reported("sr").words


def test_a_score_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scoring.write_data(tmp_path / "data.h5")
    scoring.write_samples(tmp_path / "samples.h5")
    score(scoring.options(tmp_path), Told())
    read = reported("cas")
    assert "Top-1 accuracy on real validation images: 100.0% trained on samples, " in read.said
    assert len(read.images) == 1  # no class gains or loses
    assert "accuracy rises in 0 of 3 classes, certainly in 0; it falls in 0" in read.said
    assert {"every class", *scoring.COLOURS} <= {*read.words}
    Path("cas/cas.png").unlink()
    Path("cas/cas.png").symlink_to("best.png")
    with pytest.raises(UnsafeInputError, match="is not a regular file"):
        reported("cas", out="other.html")
    Path("cas/table.json").unlink()
    with pytest.raises(MissingError, match="no score yet"):
        reported("cas", out="other.html")


def test_it_replaces_a_report_of_the_same_alone():
    reported()
    reported()
    with pytest.raises(WouldOverwriteError, match="no report of stage sr"):
        reported("sr")
    OUT.write_text("mine")
    with pytest.raises(WouldOverwriteError):
        reported()
    assert OUT.read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "error"), [("nothing.h5", MissingError), ("runs", BadInputError), ("t", BadInputError)]
)
def test_what_is_nothing_of_ours_has_no_page(path, error):
    Path("t").write_text("text")
    with pytest.raises(error):
        reported(path)
    assert not OUT.exists()


def test_a_page_needs_no_torchvision():
    line = "import cdm_cli.jobs.reporting.report, sys; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True)
