"""Mirrors cdm_cli/jobs/judging/nearest.py: copies among the samples are found and shown."""

import numpy as np
import pytest
import torch
from PIL import Image

from cdm_cli.jobs.judging import nearest as evaluate_nearest
from cdm_cli.jobs.judging.evaluate import run
from cdm_cli.jobs.judging.nearest import measure_median_error
from cdm_cli.jobs.runtime.world import World
from cdm_cli.metrics.neighbours import Nearest
from tests.jobs.judging.making import SAMPLES, TRAIN, options, with_images, write_workspace
from tests.tiny import CLASSES, Told, write_store

COPIES, ORIGINALS = [4, 31, 60], [50, 2, 77]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    planted = with_images(SAMPLES, COPIES, TRAIN["images/8"][ORIGINALS])
    write_store("copies.h5", "samples", {"": planted})
    return tmp_path


def test_planted_copies_are_found():
    result = run(options("nn", stores=("copies.h5",)), Told())
    first = result.neighbours[:3]
    assert {(line["sample"], line["train"]) for line in first} == set(
        zip(COPIES, ORIGINALS, strict=True)
    )
    for line in first:
        assert line["distance"] < 1e-6
        assert line["pixel_rms"] == 0
        assert line["class"] == CLASSES[SAMPLES["labels"][line["sample"]]]
        assert line["train_class"] == CLASSES[TRAIN["labels"][line["train"]]]
    rest = result.neighbours[3:]
    assert all(line["pixel_rms"] > 0 for line in rest)
    distances = [line["distance"] for line in result.neighbours]
    assert distances == sorted(distances)


def test_copies_show_in_the_table():
    """Half of the samples copied: far more lie close to train than unseen images do."""
    rows = np.arange(0, 75, 2)
    copied = with_images(SAMPLES, rows, TRAIN["images/8"][: len(rows)])
    write_store("half.h5", "samples", {"": copied})
    honest = run(options("nn"), Told()).table
    table = run(options("nn", stores=("half.h5",)), Told()).table
    assert table.value("nn_close") >= len(rows) / 75
    assert honest.value("nn_close") < 0.2
    assert table.value("nn_distance") < 1e-6 < honest.value("nn_distance")
    assert table.value("nn_distance_val") == honest.value("nn_distance_val")
    (row,) = [row for row in table.rows if row.metric == "nn_close"]
    share = row.value
    assert row.uncertainty == pytest.approx((share * (1 - share) / 75) ** 0.5)


def test_the_picture_shows_the_sample_and_its_neighbours(workspace, monkeypatch):
    monkeypatch.setattr(evaluate_nearest, "SHOWN", 3)
    result = run(options("nn", stores=("copies.h5",), out="t.json"), Told())
    assert [str(path) for path in result.written] == ["t.png", "t.json"]
    picture = np.asarray(Image.open(workspace / "t.png").convert("RGB"))
    for row in ORIGINALS:
        tile = TRAIN["images/8"][row].repeat(8, 0).repeat(8, 1)
        assert occurrences(picture, tile) >= 2  # the copy, and what it was copied from


def occurrences(picture, tile):
    """How often a tile stands in a picture, pixel by pixel."""
    side, corner = len(tile), tile[0, 0]
    ys, xs = np.nonzero((picture == corner).all(2))
    return sum(
        np.array_equal(picture[y : y + side, x : x + side], tile)
        for y, x in zip(ys.tolist(), xs.tolist(), strict=True)
    )


def test_processes_that_saw_few_images_join(monkeypatch, generator):
    """Three processes, of which one saw nothing and one fewer than k images."""
    queries = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    real = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    shares = [range(5), range(5, 6), range(0)]
    sums = []
    for rank, share in enumerate(shares):
        nearest = Nearest(queries, 4)
        nearest.add(real[list(share)], torch.tensor(list(share), dtype=torch.int64))
        monkeypatch.setattr(World, "sum_", lambda self, tensors, scalar: sums.extend(tensors))
        evaluate_nearest._join(nearest, World(rank, 3))
    total = sum(sums)

    def give(self, tensors, scalar):
        tensors[0].copy_(total)

    monkeypatch.setattr(World, "sum_", give)
    distances, ids = evaluate_nearest._join(nearest, World(2, 3))
    expected = torch.cdist(queries, real).topk(4, largest=False)
    np.testing.assert_allclose(distances, expected.values, rtol=1e-9)
    np.testing.assert_array_equal(ids, expected.indices)


def test_error_of_a_median_is_the_spread_over_fresh_samples():
    x = np.random.default_rng(0).exponential(size=(400, 201))
    claimed = np.mean([measure_median_error(one) for one in x])
    assert claimed == pytest.approx(np.median(x, 1).std(), rel=0.1)
    assert measure_median_error(np.array([3.0])) == 0


def test_without_val_there_is_no_comparison(workspace):
    table = run(options("nn", ref="samples.h5"), Told()).table
    assert [row.metric for row in table.rows] == ["nn_distance"]
