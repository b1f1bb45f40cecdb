"""Mirrors cdm_cli/jobs/judging/npz.py: references that others publish, whole and damaged.

Here too: real.py.
"""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cdm_cli.data.arrays import open_arrays
from cdm_cli.errors import BadInputError, MismatchError
from cdm_cli.jobs.judging.evaluate import run
from cdm_cli.jobs.judging.judge import open_judge
from cdm_cli.jobs.judging.npz import open_npz
from cdm_cli.signals import leave_when_asked
from tests.forking import fork
from tests.jobs.judging.making import SAMPLES, TRAIN, counted, options, write_workspace
from tests.metrics.whole import extract, frechet_distance
from tests.tiny import Told

D = 16
PIXELS = TRAIN["images/8"]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    return tmp_path


def moments(images):
    judge = open_judge(options().judge, torch.device("cpu")).extractor
    x = extract(judge, [torch.from_numpy(images).permute(0, 3, 1, 2)]).features.double().numpy()
    return x.mean(0), np.cov(x, rowvar=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mu_and_sigma_of_cleanfid(save):
    mu, sigma = moments(PIXELS)
    save("stats.npz", mu=mu, sigma=sigma)
    result = run(options("fid", ref="stats.npz"), Told())
    (row,) = result.table.rows
    expected = frechet_distance(*moments(SAMPLES["images/8"]), mu, sigma)
    assert row.value == pytest.approx(expected, rel=1e-6)
    assert (row.reference, row.reference_num) == ("stats.npz", None)
    assert len(row.reference_digest) == 64
    assert any("does not say of how many images" in line for line in result.table.notes)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_statistics_and_images_of_adm(save, monkeypatch):
    """FID takes the statistics as they are; kernel and neighbours take the images."""
    mu, sigma = moments(PIXELS)
    shifted = mu + 1
    save("VIRTUAL.npz", arr_0=PIXELS, mu=shifted, sigma=sigma)
    seen = counted(monkeypatch)
    fid = run(options("fid", ref="VIRTUAL.npz"), Told()).table.value("fid")
    assert sum(seen) == 75
    expected = frechet_distance(*moments(SAMPLES["images/8"]), shifted, sigma)
    assert fid == pytest.approx(expected, rel=1e-6)
    table = run(options("fid", "kid", "nn", ref="VIRTUAL.npz"), Told()).table
    same = run(options("kid", "nn"), Told()).table
    assert table.value("fid") == fid
    assert table.value("kid") == pytest.approx(same.value("kid", "train"), rel=1e-4)
    assert table.value("nn_distance") == pytest.approx(same.value("nn_distance"), rel=1e-5)


def test_images_alone():
    np.savez("images.npz", PIXELS, TRAIN["labels"])
    table = run(options("fid", "prdc", ref="images.npz"), Told()).table
    same = run(options("fid", "prdc"), Told()).table
    assert table.value("fid") == pytest.approx(same.value("fid", "train"), rel=1e-9)
    assert table.value("recall") == same.value("recall", "train")
    assert table.rows[0].reference_num == 90


def test_images_that_change_after_their_digest_was_taken_are_not_read():
    np.savez("images.npz", PIXELS)
    with open_npz(Path("images.npz")) as npz:
        assert npz.images is not None
        npz.images.read(np.arange(3))
        os.truncate("images.npz", 100)
        with pytest.raises(BadInputError, match=r"images\.npz was changed while it was read"):
            npz.images.read(np.arange(3))


def test_images_that_are_cut_short_after_they_were_listed_are_an_error(monkeypatch):
    np.savez("images.npz", PIXELS)

    def listed(*args):
        source = open_arrays(*args)
        os.truncate("images.npz", 1000)
        return source

    monkeypatch.setattr("cdm_cli.jobs.judging.npz.open_arrays", listed)
    with (
        pytest.raises(BadInputError, match=r"images\.npz became shorter"),
        open_npz(Path("images.npz")),
    ):
        pass


def test_statistics_alone_have_no_images():
    mu, sigma = moments(PIXELS)
    np.savez("stats.npz", mu=mu, sigma=sigma)
    for metric in ("kid", "prdc", "nn"):
        with pytest.raises(MismatchError, match=metric):
            run(options(metric, ref="stats.npz"), Told())


def test_images_of_another_size_are_refused():
    np.savez("images.npz", TRAIN["images/16"])
    with pytest.raises(MismatchError, match="images of 16 pixels, the samples 8"):
        run(options("fid", ref="images.npz"), Told())


def test_a_signal_leaves_nothing_unpacked(workspace, monkeypatch):
    np.savez_compressed("images.npz", PIXELS)
    (workspace / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(workspace / "temporary"))
    if (pid := fork()) == 0:
        leave_when_asked()
        with open_npz(Path("images.npz")):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert os.listdir("temporary") == []


def judge_named(name, feature_dim=2):
    return SimpleNamespace(name=name, feature_dim=feature_dim)


@pytest.mark.parametrize(
    ("file", "extra", "mode"),
    [
        ("cifar10_clean_train_na.npz", {}, "clean"),
        ("ffhq_legacy_tensorflow_trainval_1024.npz", {}, "legacy-tensorflow"),
        ("x_legacy_pytorch_y.npz", {}, "legacy-pytorch"),
        ("VIRTUAL_imagenet64.npz", {"mu_s": np.zeros(2)}, "legacy-tensorflow"),
    ],
)
def test_statistics_of_another_mode_are_refused(workspace, file, extra, mode):
    np.savez(file, mu=np.zeros(2), sigma=np.eye(2), **extra)
    with open_npz(workspace / file) as npz:
        assert npz.mode() == mode
        assert npz.moments(judge_named(f"inception-{mode}")) is not None
        with pytest.raises(MismatchError, match=f"statistics of inception-{mode}"):
            npz.moments(judge_named("inception-other"))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"mu": np.zeros(2)}, "neither mu and sigma nor arr_0"),
        ({"x": np.zeros(2)}, "neither mu and sigma nor arr_0"),
        ({"mu": np.full(D, np.nan), "sigma": np.eye(D)}, "mu is float64, expected finite"),
        ({"mu": np.zeros(D, int), "sigma": np.eye(D)}, "mu is int64"),
        ({"mu": np.array([None] * D), "sigma": np.eye(D)}, "mu is damaged"),
        ({"arr_0": np.zeros((4, 8, 8, 3), np.float32)}, "float32, not uint8"),
    ],
)
def test_arrays_that_cannot_be_are_refused(arrays, says):
    np.savez("bad.npz", **arrays)
    with pytest.raises(BadInputError, match=says):
        run(options("fid", ref="bad.npz"), Told())


def test_dimensions_of_another_network_are_refused():
    np.savez("bad.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(MismatchError, match="do not belong to the 16 features"):
        run(options("fid", ref="bad.npz"), Told())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_kind_of_damage_is_an_error_of_ours(workspace, save):
    """Flipped bytes all over the file, and cuts: refused, or without any effect."""
    mu, sigma = moments(PIXELS)
    save("stats.npz", mu=mu, sigma=sigma)
    whole = (workspace / "stats.npz").read_bytes()
    for place in range(0, len(whole), 37):
        changed = bytearray(whole)
        changed[place] ^= 0x41
        same_or_refused(workspace, bytes(changed), mu, sigma)
        same_or_refused(workspace, whole[:place], mu, sigma)


def same_or_refused(workspace, content, mu, sigma):
    path = workspace / "changed.npz"
    path.write_bytes(content)
    try:
        with open_npz(path) as npz:
            found = npz.moments(judge_named("any", D))
    except (BadInputError, MismatchError):
        return
    np.testing.assert_array_equal(found.mu, mu)
    np.testing.assert_array_equal(found.sigma, sigma)
