"""Mirrors cdm_cli/jobs/training/{select,best}.py: the best weights stay, across interruptions."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.snapshot import save_best
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.training import select as training_select
from cdm_cli.jobs.training.best import read_best
from cdm_cli.metrics.table import Convention, MetricRow
from cdm_cli.nets.ema import Ema
from cdm_cli.options.sampling import Compute
from tests.jobs.judging.making import write_judge
from tests.jobs.stopping import StopsAtBar
from tests.tiny import Told, arrays_of, base_config, write_stage, write_store
from tests.trained import CLASSIFIER, SR, overflowing, rows, train, write_data

SELECT = {"select": "fid", "select_num": 6, "select_every": 2, "features": "judge"}
KEEP_ALL = "training.keep=9"


@pytest.fixture
def home(tmp_path):
    write_data(tmp_path / "data.h5")
    write_judge(tmp_path / "runs/judge")
    return tmp_path


def base(home):
    return home / "runs/base"


def score_of(value, reference="train", without=()):
    """The row of a score, with leave-out values where they are given."""
    convention = Convention(
        num=6, balance="", extractor="x", extractor_digest="", resize="", resolution=8
    )
    return MetricRow(
        metric="fid", value=value, reference=reference, convention=convention,
        without=tuple(without), groups="mark" if len(without) else "",
    )  # fmt: skip


def of(value, seed):
    """A score whose leave-out values share most of their noise with the others."""
    shared, own = (np.random.default_rng(one).normal(size=10) for one in (0, seed))
    return score_of(value, without=value + shared + 0.01 * own)


class Scored:
    """A table of scores that the test decides: values, or whole rows."""

    def __init__(self, value):
        self._row = value if isinstance(value, MetricRow) else score_of(value)

    def row(self, metric, reference):
        return self._row

    def value(self, metric, reference):
        return self._row.value + (1.0 if reference == "val" else 0.0)


def scripted(monkeypatch, *values):
    """Let judgements find these values, one after another; returns the names they were given."""
    names, left = [], list(values)

    def judged(panel, probe, images, name):
        names.append(name)
        return Scored(left.pop(0))

    monkeypatch.setattr(training_select, "judge_probe", judged)
    return names


def tensors(path):
    return load(path.read_bytes())


def best_is(home, step):
    """Whether best.safetensors has the averaged weights of a step."""
    best = tensors(base(home) / "best.safetensors")
    there = tensors(base(home) / f"checkpoints/step-{step:08d}/ema.safetensors")
    return all(torch.equal(tensor, there[name]) for name, tensor in best.items())


def test_the_weights_of_the_lowest_fid_are_kept(home, monkeypatch):
    names = scripted(monkeypatch, 5.0, 3.0, 4.0)
    told = Told()
    result = train(home, KEEP_ALL, told=told, **SELECT)
    assert names == ["step 2", "step 4", "step 5"]
    (said,) = (line for line in told.lines if line.startswith("--select fid every 2 steps: num 6"))
    assert not [one for one in said.partition(": ")[2].split(", ") if one.endswith(" ")]
    assert (result.best_step, result.best_fid) == (4, 3.0)
    assert best_is(home, 4)
    assert not best_is(home, 5)
    logged = [row for row in rows(base(home)) if "fid_train" in row]
    assert [(row["step"], row["fid_train"], row["fid_val"]) for row in logged] == [
        (2, 5.0, 6.0), (4, 3.0, 4.0), (5, 4.0, 5.0),
    ]  # fmt: skip
    assert "step 2: FID 5 of 6 samples against train; its weights are kept, the lowest so far" in (
        told.lines
    )
    assert (
        "step 5: FID 4 of 6 samples against train, beside 3 of step 4: how surely is not known; "
        "step 4 stays the lowest"
    ) in told.lines
    assert load_stage("base", home / "runs", "best").name == "base"


def test_the_line_says_if_the_new_best_is_certain_to_be_better(home, monkeypatch):
    scripted(monkeypatch, of(5.0, 1), of(3.0, 2), of(2.999, 3))
    told = Told()
    assert train(home, KEEP_ALL, told=told, **SELECT).best_step == 5  # which are kept is as ever
    lines = [line for line in told.lines if "samples against" in line]
    assert re.search(r"beside 5 of step 2: better with certainty, by 2 ± 0.0\d+; its w", lines[1])
    assert re.search(r"beside 3 of step 4: not told apart, they differ by 0\.0\d+ ± 0.0", lines[2])
    assert best_is(home, 5)
    train(home, KEEP_ALL, steps=5)
    scripted(monkeypatch, of(9.0, 4))
    told = Told()
    train(home, KEEP_ALL, told=told, steps=6, **SELECT)  # another process compares with the file
    (line,) = [line for line in told.lines if "samples against" in line]
    assert re.search(r"beside 2.999 of step 5: worse with certainty, by 6 .*; step 5 stays", line)


def test_real_scores_keep_what_they_are_compared_by(home):
    train(home, steps=4, **SELECT)
    kept = json.loads(read_metadata(base(home) / "best.safetensors")["score"])["jackknife"]
    assert len(kept["without"]) == len(kept["without_two"]) == 6
    assert kept["groups"]


def test_one_stage_draws_every_time_and_gives_its_memory_back(home, monkeypatch):
    stages, released, real = [], [], training_select.build_averaged

    def averaged(*args, **how):
        own = real(*args, **how)
        stages.append(own.with_denoise(own.denoise, lambda: released.append(len(stages))))
        return stages[-1]

    monkeypatch.setattr(training_select, "build_averaged", averaged)
    train(home, steps=4, **SELECT)
    assert released == [1, 1]


def test_that_it_compiles_is_told_once(home, monkeypatch):
    asked, real = [], training_select.build_averaged

    def averaged(stage, ema, *, compiled):
        asked.append(compiled)
        return real(stage, ema)

    monkeypatch.setattr(training_select, "build_averaged", averaged)
    monkeypatch.setattr("cdm_cli.jobs.training.train.compile_net", lambda net: None)
    told = Told()
    train(home, told=told, steps=4, compute=Compute(compile=True), **SELECT)
    assert asked == [True]
    assert sum("compiling the network at its first use" in line for line in told.lines) == 1


def test_of_equals_the_first_is_kept_and_nan_never(home, monkeypatch):
    scripted(monkeypatch, 3.0, 3.0, float("nan"))
    assert train(home, KEEP_ALL, **SELECT).best_step == 2
    assert best_is(home, 2)


def test_samples_that_are_not_finite_have_no_score(home, monkeypatch):
    """Black images would be judged like any others. Training goes on; its memory is released."""
    monkeypatch.setattr(training_select, "build_averaged", overflowing)
    monkeypatch.setattr(Ema, "copy_to", lambda ema, net: None)
    told = Told()
    result = train(home, told=told, **SELECT)
    assert (result.steps, result.best_step) == (5, None)
    assert "step 4 is not judged: the average gives images that are not finite" in told.lines
    assert not (base(home) / "best.safetensors").exists()
    assert not [row for row in rows(base(home)) if "fid_train" in row]


def test_the_score_says_by_which_rules_it_was_judged(home):
    train(home, "training.seed=4", steps=2, **SELECT)
    metadata = read_metadata(base(home) / "best.safetensors")
    score = json.loads(metadata["score"])
    assert (metadata["step"], score["metric"]) == ("2", "fid")
    assert score["value"] == rows(base(home))[-1]["fid_train"]
    rules = score["judged_by"]
    assert rules["num"] == 6
    assert (rules["sampler"], rules["steps"], rules["seed"]) == ("sde-dpm-solver++", 3, 4)
    assert (rules["against"], rules["extractor"]) == ("train", "classifier-judge")
    assert set(rules) > {"reference_digest", "extractor_digest", "resize", "variance", "clip"}


def test_the_best_outlives_the_process(home, monkeypatch):
    scripted(monkeypatch, 5.0, 3.0, 4.0)
    train(home, KEEP_ALL, steps=4, **SELECT)
    result = train(home, KEEP_ALL, steps=5, **SELECT)
    assert (result.best_step, result.best_fid) == (4, 3.0)
    assert best_is(home, 4)


def test_a_stop_while_judging_is_obeyed_and_made_up_for(home, monkeypatch):
    scripted(monkeypatch, 3.0, 4.0)
    with pytest.raises(StoppedError, match="after step 2 of 3"):
        train(home, KEEP_ALL, steps=3, told=StopsAtBar("draw"), **SELECT)
    assert not (base(home) / "best.safetensors").exists()
    assert not any("fid_train" in row for row in rows(base(home)))
    assert train(home, KEEP_ALL, steps=3, **SELECT).best_step == 2
    assert [row["step"] for row in rows(base(home)) if "fid_train" in row] == [2, 3]


def test_a_run_that_is_finished_is_judged_once(home, monkeypatch):
    names = scripted(monkeypatch, 3.0)
    train(home, steps=2)
    for _ in range(2):
        result = train(home, steps=2, **SELECT)
        assert (result.best_step, result.loss) == (2, None)
    assert names == ["step 2"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"select_num": 7}, "--select-num was 6, is 7"), ({}, "extractor_digest was")],
)
def test_scores_of_other_rules_are_not_compared(changes, rule, home, monkeypatch):
    scripted(monkeypatch, 3.0)
    train(home, steps=2, **SELECT)
    before = (base(home) / "best.safetensors").read_bytes()
    stage = (base(home) / "stage.json").read_bytes()
    if not changes:
        write_judge(home / "runs/other", seed=1)
        (home / "runs/judge/ema.safetensors").write_bytes(
            (home / "runs/other/ema.safetensors").read_bytes()
        )
    with pytest.raises(WouldOverwriteError, match=rule):
        train(home, steps=4, **(SELECT | changes))
    assert (base(home) / "best.safetensors").read_bytes() == before
    assert not (base(home) / "checkpoints/step-00000004").exists()
    assert (base(home) / "stage.json").read_bytes() == stage  # not claimed for so many steps


HALF = '{"metric": "fid", "value": 1, "judged_by": {"seed": 0}, "jackknife": '


@pytest.mark.parametrize(
    "score",
    ["good", "{}", '{"metric": "fid", "value": "x"}',
     '{"metric": "fid", "value": 1, "judged_by": [0]}', HALF + '{"groups": "a"}}', HALF + "[1]}",
     HALF + '{"groups": "a", "without": [1, 2], "without_two": [1]}}'],
)  # fmt: skip
def test_a_best_of_no_score_is_told(score, home):
    train(home, steps=1)
    save_best(base(home), tensors(base(home) / "ema.safetensors"), 1, score)
    with pytest.raises(BadInputError, match="does not say what made it best"):
        read_best(base(home))


def test_sr_stages_are_judged_on_val_enlarged(home):
    sample_s = "training.sample_s=7"
    train(home, sample_s, preset="tiny-sr8-16", small=SR, name="sr", steps=2, **SELECT)
    best = read_best(home / "runs/sr")
    assert best is not None
    assert (best.judged_by["s"], best.judged_by["lowres"]) == (7, "val")


def test_sr_stages_are_judged_on_generated_images_where_they_are_named(home):
    write_store(home / "low.h5", "samples", {"": arrays_of(8, (8,), seed=3)})
    settings = {"preset": "tiny-sr8-16", "small": SR, "name": "sr", "steps": 2, **SELECT}
    train(home, select_lowres=home / "low.h5", **settings)
    best = read_best(home / "runs/sr")
    assert best is not None
    assert best.judged_by["lowres"] == "generated"
    with open_store(home / "low.h5") as store:
        assert best.judged_by["lowres_digest"] == store.digest
    with pytest.raises(
        WouldOverwriteError, match="another selection: --select-lowres was generated, is"
    ):
        train(home, **(settings | {"steps": 3}))
    with pytest.raises(UsageError, match=r"--select-lowres .*: nothing is selected without --sel"):
        train(home, **(settings | {"select": None, "select_lowres": home / "low.h5"}))
    with pytest.raises(UsageError, match=r"--select-lowres .*base stage"):
        train(home, **(SELECT | {"select_lowres": home / "low.h5"}))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"select": "fod"}, UsageError, "--select fod: stages are selected by fid"),
        ({"features": "nobody"}, MissingError, "nobody"),
        ({"features": "drawing"}, MismatchError, "--features drawing: .* draws images"),
        ({"features": "inception"}, MissingError, "Inception weights"),
        ({"preset": "tiny-sr8-16", "small": SR, "select_num": 13}, UsageError, "12 images in val"),
        ({"preset": "tiny-classifier", "small": CLASSIFIER}, UsageError, "classifier draws no"),
    ],
)
def test_what_cannot_select_is_told_before_anything_is_written(changes, error, told, home):
    write_stage(home / "runs/drawing", base_config())
    with pytest.raises(error, match=told):
        train(home, **(SELECT | changes))
    assert not base(home).exists()


def test_an_sr_stage_knows_its_s(home):
    settings = {"preset": "tiny-sr8-16", "small": SR, **SELECT}
    with pytest.raises(UsageError, match=r"s = 0\.\.20"):
        train(home, "training.sample_s=21", **settings)
    with pytest.raises(UsageError, match=r"training\.sample_s: a base stage has no s"):
        train(home, "training.sample_s=3", **SELECT)
