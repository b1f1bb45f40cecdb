"""docs/api.md: its code runs as it stands, and what it promises is so."""

import re

import numpy as np
import pytest

import cdm_cli as cdm
from cdm_cli.jobs.judging.evaluate import run as evaluate
from cdm_cli.jobs.sampling.sample import run as sample
from cdm_cli.jobs.sampling.upsample import run as upsample
from cdm_cli.options.judging import EvalOptions
from cdm_cli.options.sampling import SampleOptions, UpsampleOptions
from tests.asking import as_typed
from tests.tiny import Told, base_config, sr_config, write_stage
from tests.trained import CLASSIFIER, train, write_data
from tests.tree import ROOT

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    path = tmp_path_factory.mktemp("workspace")
    write_data(path / "data.h5", num=48, num_val=24)
    write_stage(path / "runs/base", base_config())
    write_stage(path / "runs/sr", sr_config())
    train(path, name="features", preset="tiny-classifier", small=CLASSIFIER, steps=2)
    return path


@pytest.fixture(autouse=True)
def there(workspace, monkeypatch):
    monkeypatch.chdir(workspace)


def test_the_code_of_the_page_runs(capsys):
    code = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.S))
    known = {}
    exec(compile(code, "docs/api.md", "exec"), known)
    assert known["high"].images.shape == (24, 16, 16, 3)
    told = capsys.readouterr().out
    assert "num = 0: expected 1 or more 2" in told
    assert re.search(r"FID [\d.]+ ± [\d.]+\n", told)


def test_samples_are_those_that_the_commands_write(tmp_path):
    """150 of them: three blocks, the last one short, so that batches are filled up alike."""
    low, high, steps = tmp_path / "low.h5", tmp_path / "high.h5", {"steps": 3}
    asked = as_typed(
        SampleOptions, num=150, classes="0,2", keep_s=(5,), out=low, compute=CPU,
        sampling={"seed": 7, **steps},
    )  # fmt: skip
    sample(asked, Told())
    base = cdm.load_stage("base", device="cpu")
    drawn = cdm.sample(base, num=150, classes=[0, 2], keep_s=[5], seed=7, steps=3)
    assert_same(drawn, cdm.read(low, z=[5]))

    sr = cdm.load_stage("runs/sr", device="cpu")
    for augment, z_s in (("non-truncated", None), ("truncated", drawn.z[5])):
        asked = as_typed(
            UpsampleOptions, lowres=low, model="sr", s=5, augment=augment, keep_s=(3,),
            out=high.with_stem(augment), compute=CPU, sampling={"seed": 7},
        )  # fmt: skip
        upsample(asked, Told())
        made = cdm.upsample(
            sr, drawn.images, drawn.labels, s=5, z_s=z_s, keep_s=[3], seed=7
        )  # fmt: skip
        assert_same(made, cdm.read(high.with_stem(augment), z=[3]))


def assert_same(one, other):
    for mine, theirs in zip(one[:3], other[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert one.z.keys() == other.z.keys()
    for s in one.z:
        np.testing.assert_array_equal(one.z[s], other.z[s])


def test_numbers_are_those_of_the_command(tmp_path):
    metrics = ("fid", "is", "kid", "prdc", "accuracy")
    asked = as_typed(
        EvalOptions, metrics=metrics, stores=("data.h5",), split="val", resolution=16,
        judge={"features": "features", "ref": "data.h5", "compute": CPU},
    )  # fmt: skip
    told = [row for row in evaluate(asked, Told()).table.rows if row.reference in ("train", "")]
    judge = cdm.load_judge("features", device="cpu")
    val, real = (cdm.read("data.h5", split=split, resolution=16) for split in ("val", "train"))
    found = cdm.evaluate(val, real, metrics, features=judge).rows
    assert [row.metric for row in found] == [row.metric for row in told]
    for mine, theirs in zip(found, told, strict=True):
        assert mine.value == pytest.approx(theirs.value, rel=1e-12), mine.metric
        assert mine.uncertainty == pytest.approx(theirs.uncertainty, rel=1e-9), mine.metric
    assert cdm.fid(val.images, real.images, features=judge).value == pytest.approx(found[0].value)
