"""Mirrors cdm_cli/jobs/judging/references.py: statistics kept, found again, never believed."""

import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdm_cli.errors import MismatchError
from cdm_cli.jobs.judging.evaluate import run
from cdm_cli.jobs.judging.judge import open_judge
from cdm_cli.jobs.judging.references import find_references, open_training_images
from tests.jobs.judging.making import CPU, TRAIN, counted, options, write_judge, write_workspace
from tests.tiny import Told, arrays_of, write_store


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    return tmp_path


def found(resolution=8, told=None):
    judge = open_judge(options().judge, torch.device("cpu")).extractor
    return find_references(
        options().judge.ref, resolution, judge, replace(CPU, report=told or Told())
    )


def kept(workspace):
    return sorted((workspace / "data.h5.stats").iterdir())


def test_statistics_are_computed_once_and_kept_beside_the_data(workspace, monkeypatch):
    seen = counted(monkeypatch)
    before = (workspace / "data.h5").read_bytes()
    first = found()
    assert sum(seen) == 90 + 60
    assert [path.name.rsplit("-", 1)[0] for path in kept(workspace)] == [
        "train-8-classifier-judge", "val-8-classifier-judge",
    ]  # fmt: skip
    seen.clear()
    again = found()
    assert seen == []
    for one, other in zip(first, again, strict=True):
        assert (one.name, one.num, one.digest) == (other.name, other.num, other.digest)
        for name in ("mu", "sigma", "features", "ids"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (workspace / "data.h5").read_bytes() == before


def test_statistics_of_another_judge_size_or_data_are_not_taken(workspace, monkeypatch):
    found()
    seen = counted(monkeypatch)
    found(16)
    assert sum(seen) == 150
    shutil.rmtree(workspace / "runs/judge")
    write_judge(workspace / "runs/judge", seed=1)
    found()
    assert sum(seen) == 300
    (workspace / "data.h5").unlink()
    write_store("data.h5", "prepared", {"train": TRAIN, "val": arrays_of(60, (8, 16), seed=9)})
    found()
    assert sum(seen) == 450


@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.6, 0.999])
def test_damaged_statistics_are_computed_anew(workspace, monkeypatch, place):
    expected = found()[0].mu
    path = kept(workspace)[0]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    seen, told = counted(monkeypatch), Told()
    np.testing.assert_array_equal(found(told=told)[0].mu, expected)
    assert sum(seen) == 90
    assert any("computing the statistics anew" in line for line in told.lines)
    seen.clear()
    found()
    assert seen == []


def test_a_cut_file_and_a_link_are_not_believed(workspace, monkeypatch):
    found()
    train, val = kept(workspace)
    train.write_bytes(train.read_bytes()[:100])
    val.rename(workspace / "elsewhere")
    val.symlink_to(workspace / "elsewhere")
    seen = counted(monkeypatch)
    found()
    assert sum(seen) == 150


def test_where_nothing_can_be_kept_the_numbers_come_all_the_same(workspace):
    (workspace / "data.h5.stats").write_text("a file in the way")
    told = Told()
    assert [reference.name for reference in found(told=told)] == ["train", "val"]
    assert any("could not be kept" in line for line in told.lines)


def test_samples_may_be_a_reference_too():
    (reference,) = find_references(
        options(ref="samples.h5").judge.ref,
        8,
        open_judge(options().judge, torch.device("cpu")).extractor,
        CPU,
    )
    assert (reference.name, reference.num) == ("ref", 75)
    row = run(options("fid", ref="samples.h5"), Told()).table.rows[0]
    assert row.value == pytest.approx(0, abs=1e-9)


def test_a_missing_resolution_is_told_with_what_there_is():
    with pytest.raises(MismatchError, match="images of 8, 16 pixels, the samples 32"):
        found(32)


def test_training_images_are_those_of_train():
    with ExitStack() as stack:
        images = open_training_images(options().judge.ref, 8, stack)
        assert images.num == 90
        np.testing.assert_array_equal(
            images.read(np.array([3, 7])).permute(0, 2, 3, 1), TRAIN["images/8"][[3, 7]]
        )
    with ExitStack() as stack, pytest.raises(MismatchError, match="the samples 64"):
        open_training_images(options().judge.ref, 64, stack)
