"""Mirrors cdm_cli/api/judging.py; that its numbers are those of `cdm eval`: test_page.py."""

import numpy as np
import pytest

import cdm_cli as cdm
from cdm_cli.errors import MismatchError, UsageError
from tests.tiny import pictures
from tests.trained import CLASSIFIER, train, write_data


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    path = tmp_path_factory.mktemp("judge")
    write_data(path / "data.h5")
    return path


@pytest.fixture(scope="module")
def judge(workspace):
    train(workspace, name="features", preset="tiny-classifier", small=CLASSIFIER, steps=2)
    return cdm.load_judge(str(workspace / "runs/features"), device="cpu", batch_size=7)


def test_images_of_anybody(judge):
    some, others = pictures(40, 16, seed=1), pictures(50, 16, seed=2)
    score = cdm.fid(some, others, features=judge)
    assert score.value > 0
    assert score.error > 0
    assert cdm.fid(some, some, features=judge).value == pytest.approx(0, abs=1e-9)
    truth = cdm.reference(others, features=judge)
    assert cdm.fid(some, truth, features=judge).value == score.value
    assert cdm.fid(some, truth, features=judge).minus(score).error == 0


def test_labels_are_places_among_the_classes_of_the_judge(judge):
    images = pictures(40, 16)
    samples = cdm.Samples(images, np.arange(40) % 3, np.arange(40))
    assert judge.classes
    shares = cdm.evaluate(samples, images, ["accuracy", "is"], features=judge)
    assert 0 <= shares.value("accuracy") <= 1
    with pytest.raises(MismatchError, match="does not know the classes"):
        cdm.evaluate(images, images, "accuracy", features=judge)


def make_samples(images=None, labels=None, ids=None):
    fields = (pictures(40, 16) if images is None else images), labels, ids
    return cdm.Samples(*(np.arange(40) % 3 if each is None else each for each in fields))


@pytest.mark.parametrize(
    ("kind", "words", "wrong"),
    [
        (UsageError, "'fidd': expected fid", {"metrics": "fidd"}),
        (UsageError, "metrics: nn takes stores", {"metrics": ["fid", "nn"]}),
        (UsageError, "metrics: all takes stores", {"metrics": "all"}),
        (MismatchError, r"samples are float64 \[9, 8, 8, 3\]", {"samples": np.zeros((9, 8, 8, 3))}),
        (MismatchError, r"real are uint8 \[9, 8, 8\]", {"real": np.zeros((9, 8, 8), np.uint8)}),
        (MismatchError, "has 1 of at least 2 images", {"samples": pictures(1, 16)}),
        (MismatchError, "samples are of type str, expected uint8", {"samples": "samples.h5"}),
        (MismatchError, "real are of type list, expected uint8", {"real": [pictures(40, 16)]}),
        (MismatchError, "samples have 8 pixels, the real images 16", {"samples": pictures(40, 8)}),
        (MismatchError, "20 ids of samples for 40 images",
         {"samples": make_samples(ids=np.arange(20))}),
        (MismatchError, "40 ids of real for 20 images", {"real": make_samples(pictures(20, 16))}),
        (MismatchError, "labels of samples are no whole numbers",
         {"samples": make_samples(labels=np.arange(40) / 2)}),
        (MismatchError, "labels outside 0..2, the classes of the judge",
         {"samples": make_samples(labels=np.arange(40) % 4), "metrics": "accuracy"}),
        (UsageError, "seed = -1: expected 0 or more", {"seed": -1}),
        (UsageError, "features is of type NoneType, expected what load_judge", {"features": None}),
    ],
)  # fmt: skip
def test_what_cannot_be(judge, kind, words, wrong):
    given = {"samples": pictures(40, 16), "real": pictures(40, 16)} | wrong
    with pytest.raises(kind, match=words):
        cdm.evaluate(**{"features": judge} | given)


def test_a_reference_is_of_one_judge(workspace, judge):
    train(workspace, name="other", preset="tiny-classifier", small=CLASSIFIER, steps=1)
    images = pictures(40, 16)
    other = cdm.load_judge(str(workspace / "runs/other"), device="cpu")
    with pytest.raises(MismatchError, match="were judged by another judge"):
        cdm.fid(images, cdm.reference(images, features=other), features=judge)
