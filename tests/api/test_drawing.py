"""Mirrors cdm_cli/api/drawing.py and jobs/sampling/in_memory.py: what cannot be is told."""

import numpy as np
import pytest

import cdm_cli as cdm
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from tests.tiny import Told, base_config, continuous_config, sr_config, write_stage
from tests.trained import CLASSIFIER, train, write_data

IMAGES, LABELS = np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 2]


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", base_config())
    write_stage(tmp_path / "runs/sr", sr_config())


def load(name):
    return cdm.load_stage(name, device="cpu")


def test_a_stage_says_what_it_is():
    base, sr = load("base"), load("sr")
    assert (base.kind, base.resolution, sr.kind, sr.resolution) == ("base", 8, "sr", 16)
    assert base.classes == ("disk", "ring", "tench, Tinca tinca")


def test_numbers_of_numpy_and_names_of_classes_do():
    base = load("base")
    drawn = cdm.sample(base, num=np.int64(4), classes="ring", seed=np.int64(3), steps=np.int64(2))
    assert drawn.labels.tolist() == [1] * 4
    again = cdm.sample(base, num=4, classes=[1], seed=3, steps=2)
    np.testing.assert_array_equal(drawn.images, again.images)
    assert len(cdm.sample(base, per_class=2, steps=1).images) == 6
    one = cdm.sample(base, num=2, classes=1, keep_s=5, steps=2)  # as [1] and [5]
    assert (one.labels.tolist(), list(one.z)) == ([1, 1], [5])


def test_progress_is_reported():
    told = Told()
    cdm.sample(load("base"), num=3, steps=2, report=told)
    assert (told.done, told.total) == (6, 6)


@pytest.mark.parametrize(
    ("kind", "words", "wrong"),
    [
        (UsageError, "sampling.sampler = 'dimm': expected", {"sampler": "dimm"}),
        (UsageError, "num = 0: expected 1 or more", {"num": 0}),
        (UsageError, "--classes 7: the classes are 0-2", {"classes": [7]}),
        (UsageError, "--num and --per-class exclude each other", {"num": 3, "per_class": 1}),
        (UsageError, "stepps: there is no such setting; did you mean steps", {"stepps": 3}),
        (UsageError, "stage is of type str, expected what load_stage returns", {"stage": "base"}),
    ],
)
def test_what_sample_cannot_do(kind, words, wrong):
    with pytest.raises(kind, match=words):
        cdm.sample(**{"stage": load("base")} | wrong)


@pytest.mark.parametrize(
    ("kind", "words", "wrong"),
    [
        (UsageError, "--s is missing: the stage takes 0..20", {"s": None}),
        (UsageError, "--s 21", {"s": 21}),
        (MismatchError, r"images are uint8 \[3, 9, 8, 3\], .*sr starts from uint8 \[3, 8, 8, 3\]",
         {"images": np.zeros((3, 9, 8, 3), np.uint8)}),
        (MismatchError, "images are float32", {"images": IMAGES.astype(np.float32)}),
        (MismatchError, "z_s are float32", {"z_s": np.zeros((3, 8, 8, 3), np.float32)}),
        (MismatchError, "images are of type str, expected uint8", {"images": "lowres.h5"}),
        (MismatchError, "z_s are of type list, expected float16", {"z_s": [0, 1, 2]}),
        (MismatchError, "2 labels for 3 images", {"labels": [0, 1]}),
        (MismatchError, "labels are no whole numbers", {"labels": [0, 1.5, 2]}),
        (MismatchError, "labels are no whole numbers", {"labels": [0, float("nan"), 2]}),
        (MismatchError, "labels are no whole numbers", {"labels": ["disk", "ring", "disk"]}),
        (MismatchError, "2 ids for 3 images", {"ids": [0, 1]}),
        (MismatchError, "ids are no whole numbers", {"ids": [0, 0.5, 1]}),
        (BadInputError, "labels outside 0..2", {"labels": [0, 1, 3]}),
        (BadInputError, "labels outside 0..2", {"labels": [-1, 1, 2]}),
        (UsageError, "there are no images", {"images": IMAGES[:0], "labels": []}),
    ],
)  # fmt: skip
def test_what_upsample_cannot_do(kind, words, wrong):
    given = {"images": IMAGES, "labels": LABELS, "s": 5} | wrong
    with pytest.raises(kind, match=words):
        cdm.upsample(load("sr"), given.pop("images"), given.pop("labels"), **given)


def test_stages_of_the_other_kind_are_refused(tmp_path):
    with pytest.raises(MismatchError, match="is a base stage"):
        cdm.upsample(load("base"), IMAGES, LABELS, s=5)
    with pytest.raises(MismatchError, match="is a super-resolution stage"):
        cdm.sample(load("sr"))
    with pytest.raises(MissingError, match="nosuch"):
        load("nosuch")
    write_data(tmp_path / "data.h5")
    train(tmp_path, name="features", preset="tiny-classifier", small=CLASSIFIER, steps=1)
    with pytest.raises(MismatchError, match="is a classifier"):
        load("features")


def test_a_stage_without_gaussian_augmentation_needs_no_s(tmp_path):
    write_stage(tmp_path / "runs/blurred", continuous_config())
    made = cdm.upsample(load("blurred"), IMAGES, LABELS, ids=[7, 8, 9])
    assert made.images.shape == (3, 16, 16, 3)
    assert made.ids.tolist() == [7, 8, 9]
    z_s = IMAGES.astype(np.float16)
    with pytest.raises(UsageError, match="takes s = 0 only"):
        cdm.upsample(load("blurred"), IMAGES, LABELS, z_s=z_s)
