"""Mirrors cdm_cli/jobs/demo/lessons.py: what is said is computed, and the recipe holds it."""

from pathlib import Path

import numpy as np
import pytest

from cdm_cli.jobs.demo.drawing import FIGURES
from cdm_cli.jobs.demo.lessons import correlate, list_lessons
from cdm_cli.jobs.sampling import upsample
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from tests.asking import as_typed
from tests.jobs.demo.finished import drawn, scores, sweep, write_data, write_demo
from tests.tiny import Told, write_store
from tests.trained import train

HALF = (
    "model.resolution=8", "conditioning.resolution=4", "model.attention_resolutions=[]",
    "training.grid_every=0",
)  # fmt: skip
CPU = Compute(device="cpu")


def test_a_short_training_of_the_demos_recipe_follows_its_input(tmp_path, monkeypatch):
    """With 8 groups in norms, or s up to 4000, colours correlate at 0.88, or 0.44."""
    monkeypatch.chdir(tmp_path)
    write_data(Path("data.h5"))
    settings = {"preset": "tiny-sr8-16", "small": HALF, "steps": 150, "batch_size": 32}
    train(tmp_path, name="sr", **settings)
    asked = {"lowres": Path("data.h5"), "model": "sr", "s": 0, "compute": CPU}
    upsample.run(as_typed(UpsampleOptions, sampling=Sampling(steps=12), **asked), Told())
    colours, pixels = correlate(Path("data.h5"), Path("samples.h5"))
    assert colours > 0.92
    assert pixels > 0.78


def test_correlations_are_of_the_same_ids_at_the_size_of_the_input(tmp_path):
    write_data(tmp_path / "data.h5")
    val = drawn(6, 1)
    order = np.random.default_rng(2).permutation(60)[:40]
    kept = {name: val[name][order] for name in ("images/8", "labels", "ids")}
    write_store(tmp_path / "same.h5", "samples", {"": kept}, classes=list(FIGURES))
    found = correlate(tmp_path / "data.h5", tmp_path / "same.h5")
    assert found == pytest.approx((1, 1), abs=1e-3)
    turned = kept | {"images/8": 255 - kept["images/8"]}
    write_store(tmp_path / "turned.h5", "samples", {"": turned}, classes=list(FIGURES))
    found = correlate(tmp_path / "data.h5", tmp_path / "turned.h5")
    assert found == pytest.approx((-1, -1), abs=1e-3)


def ran(directory, **how):
    write_demo(directory, **how)
    return list_lessons(directory)


def test_a_good_run_says_so_in_numbers(tmp_path):
    follows, beats, called, noise = ran(tmp_path)
    assert follows.startswith("the super-resolution stage follows its input: colours correlate at ")
    assert "FID 0.50 ± 0.05 beside 1.50 ± 0.05 (bicubic), 1.00 ± 0.10 apart" in beats
    assert "it beats merely enlarging" in beats
    assert "93% of its images by their class, 55% of those merely enlarged, 99% of real" in called
    assert noise == (
        "whether noise on its input helps, 200 images cannot tell: "
        "By FID nothing tells 6 points apart."
    )


def test_a_bad_run_says_that_as_well(tmp_path):
    bad = scores(gap=0.5), sweep("worse", 0.3)
    ignores, behind, _, noise = ran(tmp_path, inverted=True, scored=bad[0], swept=bad[1])
    assert ignores.startswith("the super-resolution stage ignores its input")
    assert "it falls behind merely enlarging" in behind
    assert noise == (
        "noise on its input helps, with certainty: without any (s = 0) FID is worse by 0.30 ± 0.02"
    )


def test_where_no_noise_is_the_best_with_certainty_nothing_is_left_open(tmp_path):
    noise = ran(tmp_path, swept=sweep("best", 0.0))[3]
    assert noise.startswith("noise on its input does not help figures as simple as these, with ")
    assert "cannot tell" not in noise


def test_what_is_within_two_errors_is_not_told_apart(tmp_path):
    assert "it cannot be told from merely enlarging" in ran(tmp_path, scored=scores(gap=-0.19))[1]
