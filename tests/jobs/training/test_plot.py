"""Mirrors cdm_cli/jobs/training/plot.py: drawn from metrics.jsonl, with every grid and at last.

Here too: log.py.
"""

import io
import json
import os
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cdm_cli.jobs.training.plot import draw_loss_plot, read_last_step, smooth
from tests.tiny import Told
from tests.trained import CLASSIFIER, train, write_data

EVERY = "training.grid_every=2"


@pytest.fixture
def home(tmp_path):
    write_data(tmp_path / "data.h5")
    return tmp_path


@pytest.fixture
def lines(monkeypatch):
    """What is drawn, under its name in the legend."""
    found = {}
    real = Axes.plot

    def plot(self, x, y, *words, label, **more):
        found[label] = dict(zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True))
        return real(self, x, y, *words, label=label, **more)

    monkeypatch.setattr(Axes, "plot", plot)
    return found


def test_it_is_drawn_with_every_grid_and_at_the_end(home, lines):
    run = home / "runs/base"
    train(home, EVERY, steps=2)
    assert read_last_step(run / "loss.png") == 2
    train(home, EVERY, steps=5)
    assert read_last_step(run / "loss.png") == 5
    assert list(lines["loss"]) == [1, 2, 3, 4, 5]
    with Image.open(run / "loss.png") as picture:
        assert picture.width > 600


def test_one_that_is_missing_or_of_an_earlier_step_is_drawn_again(home):
    path = home / "runs/base/loss.png"
    train(home, EVERY, steps=3)
    whole = path.read_bytes()
    for wrong in (b"no picture", draw_loss_plot(path.parent, 2)):
        path.write_bytes(wrong)
        train(home, EVERY, steps=3)
        assert path.read_bytes() == whole


def test_without_pictures_there_is_none(home):
    train(home, steps=2)
    assert not (home / "runs/base/loss.png").exists()


def test_a_classifier_shows_its_accuracy(home, lines):
    train(home, name="judge", preset="tiny-classifier", small=CLASSIFIER, steps=4)
    assert list(lines["accuracy on val"]) == [2, 4]
    assert read_last_step(home / "runs/judge/loss.png") == 4


def test_scores_of_select_are_shown_and_lines_that_are_none_left_out(tmp_path, lines):
    rows = [
        {"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 2, "fid_train": 9.0},
        {"step": 3, "loss": "x"}, {"step": 10**30, "loss": 1.0}, {"step": 4, "loss": 1e999},
    ]  # fmt: skip
    text = "\n".join([*map(json.dumps, rows), "half a li"])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert draw_loss_plot(tmp_path)
    assert (lines["loss"], lines["FID against train"]) == ({1: 2.0}, {2: 9.0})
    (tmp_path / "metrics.jsonl").write_text("")
    assert draw_loss_plot(tmp_path) is None


def test_smoothing_keeps_what_is_constant_and_averages_the_rest():
    assert smooth(np.full(7, 3.0)) == pytest.approx(np.full(7, 3.0))
    noise = np.random.default_rng(0).normal(size=5000)
    assert smooth(noise)[500:].std() < 0.12
    assert smooth(noise)[0] == noise[0]


def test_that_tensorboard_is_missing_is_said_once(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for steps, times in ((2, 1), (4, 0)):
        told = Told()
        train(home, steps=steps, told=told)
        assert sum("pip install tensorboard" in line for line in told.lines) == times


def test_a_plot_that_is_no_file_of_ours_says_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (1, 1)).save(tmp_path / "other.gif")
    (tmp_path / "bomb.gif").write_bytes(b"GIF89a" + b"\xff" * 300)
    for name in ("pipe.png", "other.gif", "bomb.gif", "absent.png"):
        assert read_last_step(tmp_path / name) is None


def test_a_single_loss_is_a_point(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 7, "loss": 0.5}))
    with Image.open(io.BytesIO(draw_loss_plot(tmp_path))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    above_the_legend = pixels[: len(pixels) * 3 // 4]
    assert (above_the_legend == (31, 119, 180)).all(axis=2).sum() > 4
