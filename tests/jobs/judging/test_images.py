"""Mirrors cdm_cli/jobs/judging/images.py: every image once, in flat memory."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MismatchError, UsageError
from cdm_cli.jobs.judging.images import collect, from_arrays, from_store, read_batches
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import Compute
from tests.jobs.judging.making import CPU, SAMPLES, write_workspace
from tests.tiny import CLASSES, Told


class Means:
    """Judges by the mean of each channel, repeated to D features."""

    name, digest, resize = "means", "0" * 64, "none"

    def __init__(self, feature_dim=3, broken=False):
        self.feature_dim, self.broken, self.seen = feature_dim, broken, []

    def __call__(self, images):
        self.seen.append(images)
        x = images.float().mean((2, 3)).repeat(1, self.feature_dim // 3)
        return x / 0 if self.broken else x, None


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)


def test_each_image_is_judged_once_whatever_the_batch():
    with open_store("samples.h5") as store:
        images = from_store(store, None, 8, None, 0)
        judge, told = Means(), Told()
        collector = collect(images, judge, replace(CPU, report=told))
        shown = torch.cat(judge.seen).permute(0, 2, 3, 1)
        np.testing.assert_array_equal(shown, SAMPLES["images/8"])
        assert (told.done, told.total) == (75, 75)
        one = collect(images, Means(), replace(CPU, compute=Compute(batch_size=7)))
    np.testing.assert_allclose(one.whole.sigma, collector.whole.sigma, rtol=1e-12)
    x = SAMPLES["images/8"].mean((1, 2), dtype=np.float64)
    np.testing.assert_allclose(collector.whole.mu, x.mean(0), rtol=1e-6)


def test_a_judge_that_lacks_memory_is_shown_fewer_at_a_time():
    class Limited(Means):
        def __call__(self, images):
            if len(images) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(images)

    with open_store("samples.h5") as store:
        images, told = from_store(store, None, 8, None, 0), Told()
        collector = collect(images, Limited(), replace(CPU, report=told))
        whole = collect(images, Means(), CPU)
    np.testing.assert_array_equal(collector.whole.mu, whole.whole.mu)
    assert told.lines[-1] == "out of device memory: now 16 images at a time"


@pytest.mark.parametrize("size", [1, 2, 7])
def test_processes_share_the_images(size):
    with open_store("samples.h5") as store:
        images = from_store(store, None, 8, None, 0)
        places = [
            batch[0]
            for rank in range(size)
            for batch in read_batches(images, replace(CPU, world=World(rank, size)))
        ]
    assert np.concatenate(places).tolist() == list(range(75))


def test_prepared_data_are_judged_by_split():
    with open_store("data.h5") as store:
        assert from_store(store, None, None, None, 0).name == "data.h5:val"
        train = from_store(store, "train", None, None, 0)
        assert (train.num, train.resolution) == (90, 16)
        with pytest.raises(UsageError, match=r"data\.h5 has 8, 16 — Next: --resolution 16"):
            from_store(store, "train", 4, None, 0)
        with pytest.raises(UsageError, match="--num 91"):
            from_store(store, "train", 8, 91, 0)


def test_a_choice_is_balanced_and_the_same_for_a_seed():
    with open_store("data.h5") as store:
        first, again, other = (from_store(store, "train", 8, 21, seed) for seed in (0, 0, 1))
    assert np.bincount(first.labels).tolist() == [7, 7, 7]
    assert first.ids.tolist() == again.ids.tolist() != other.ids.tolist()
    assert first.balance() == "3 classes × 7"


def test_uneven_classes_are_told():
    images = from_arrays("x", np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 0, 1]), CLASSES)
    assert images.balance() == "2 of 3 classes × 1–2"


def test_features_that_are_not_finite_are_an_error():
    images = from_arrays("x", SAMPLES["images/8"], SAMPLES["labels"], CLASSES)
    with pytest.raises(BadInputError, match="not finite"):
        collect(images, Means(broken=True), CPU)


@pytest.mark.parametrize(("num", "world"), [(1, World()), (2, World(0, 3))])
def test_fewer_images_than_make_a_covariance_or_processes(num, world):
    images = from_arrays("x", np.zeros((num, 4, 4, 3), np.uint8), np.zeros(num), CLASSES)
    with pytest.raises(MismatchError, match="of at least"):
        collect(images, Means(), replace(CPU, world=world))


def test_memory_is_flat_in_the_number_of_images():
    """A hundred thousand images of 384 features: kept, those alone would take 154 MB."""
    one = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3), np.uint8)
    images = np.broadcast_to(one, (100_000, 2, 2, 3))
    many = from_arrays("many", images, np.arange(100_000) % 3, CLASSES)
    few = from_arrays("few", images[:2000], np.arange(2000) % 3, CLASSES)
    session = replace(CPU, compute=Compute(batch_size=5000))
    collect(few, Means(384), session, keep=500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    collector = collect(many, Means(384), session, keep=500)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert collector.whole.num == 100_000
    assert collector.kept.shape == (500, 384)
    assert grown < 64 * 1024  # KiB
