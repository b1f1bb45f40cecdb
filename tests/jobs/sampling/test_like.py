"""Mirrors cdm_cli/jobs/sampling/like.py: samples in the proportions of a store's classes.

Here too: parents.py, provenance.py.
"""

import numpy as np
import pytest

from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError, UsageError, WouldOverwriteError
from cdm_cli.jobs.checking import verify
from cdm_cli.jobs.sampling import like as counting
from cdm_cli.jobs.sampling.sample import run
from cdm_cli.options.files import VerifyOptions
from cdm_cli.options.sampling import Compute, SampleOptions
from tests.asking import as_typed
from tests.tiny import Told, arrays_of, base_config, contents, write_stage, write_store

CPU = Compute(device="cpu")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """Images of classes 0, 1 and 2: 6, 0 and 3 in train, and others in val."""
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", base_config())
    train = {**arrays_of(9, (8,)), "labels": np.array([0, 0, 0, 0, 0, 0, 2, 2, 2])}
    write_store(tmp_path / "data.h5", "prepared", {"train": train, "val": arrays_of(5, (8,))})
    return tmp_path


def sample(out="like.h5", **changes):
    values = {"like": "data.h5", "out": out, "compute": CPU}
    return run(as_typed(SampleOptions, **(values | changes)), Told())


def labels_in(path):
    with open_store(path) as store:
        return np.asarray(store.parts[""].labels).tolist()


def test_there_are_as_many_samples_as_training_images_in_their_proportions(workspace):
    assert sample().samples == 9
    assert labels_in("like.h5") == [0, 2, 0] * 3
    assert sample("more.h5", num=12).samples == 12
    assert labels_in("more.h5") == [0, 2, 0] * 4
    assert sample("one.h5", classes="0").samples == 6
    assert labels_in("one.h5") == [0] * 6


def test_the_image_of_an_id_and_class_is_that_of_any_other_store(workspace):
    sample()
    run(as_typed(SampleOptions, classes="0,2", num=9, out="all.h5", compute=CPU), Told())
    with open_store("like.h5") as one, open_store("all.h5") as other:
        same = np.asarray(one.parts[""].labels) == np.asarray(other.parts[""].labels)
        images = [np.asarray(store.parts[""].images(8)[:])[same] for store in (one, other)]
    assert same.any()
    assert np.array_equal(*images)


def test_parts_and_replays_know_the_counts(workspace):
    sample()
    found = verify.run(as_typed(VerifyOptions, path="like.h5", replay=9, device="cpu"), Told())
    assert found.state == "good"
    whole = sample("whole.h5", num=100).samples
    half = sample("half.h5", num=100, part="2/2").samples
    assert half == 36
    assert labels_in("half.h5") == labels_in("whole.h5")[whole - half :]


def test_other_proportions_are_another_store(workspace):
    sample()
    before = contents(workspace / "like.h5")
    with pytest.raises(WouldOverwriteError, match="--like"):
        sample(like=None, classes="0,2", num=9)
    assert contents(workspace / "like.h5") == before


def test_what_cannot_be_counted_is_refused(workspace, monkeypatch):
    with pytest.raises(MismatchError, match="no image of these classes"):
        sample(classes="1")
    with pytest.raises(UsageError, match="--like and --per-class exclude"):
        sample(per_class=3)
    odd = write_store(
        workspace / "odd.h5", "prepared", {"train": arrays_of(9, (8,))}, classes=("a", "b", "c")
    )
    with pytest.raises(MismatchError, match="class 0 is 'disk' in the stage, 'a' in the store"):
        sample(like=str(odd))
    monkeypatch.setattr(counting, "MOST_COUNTED", 8)
    with pytest.raises(MismatchError, match="9 images, 8 can be counted"):
        sample()
    write_stage(workspace / "runs/plain", base_config(num_classes=0))
    with pytest.raises(UsageError, match="trained without classes"):
        sample(stage="plain")
    assert not (workspace / "like.h5").exists()
