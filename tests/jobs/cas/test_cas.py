"""Mirrors cdm_cli/jobs/cas/cas.py and what it is made of: scores that are known beforehand.

Here too: cost.py, files.py, pictures.py, plan.py, recipe.py, report.py, training.py.
"""

import csv
import json
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from cdm_cli.commands._render import write_lines
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    DivergedError,
    MemoryFloorError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.cas import cost as cas_cost
from cdm_cli.jobs.cas import report as cas_report
from cdm_cli.jobs.cas import training as cas_training
from cdm_cli.jobs.cas.cas import plan, run
from cdm_cli.jobs.cas.plan import plan_work
from cdm_cli.jobs.cas.recipe import choose_recipe
from cdm_cli.jobs.cas.report import find_extremes
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.runtime.foretold import RECKONED, TIMED
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.judging import EvalOptions
from tests.asking import as_typed, type_advice
from tests.jobs.judging.scoring import (
    COLOURS,
    balanced,
    coloured,
    options,
    write_data,
    write_samples,
)
from tests.tiny import Told, write_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data and good samples; the reference is trained once, by whoever comes first."""
    folder = tmp_path_factory.mktemp("cas")
    write_data(folder / "data.h5")
    write_samples(folder / "samples.h5")
    return folder


@pytest.fixture(autouse=True)
def plots(monkeypatch, request):
    """Drawing takes longer than training here; one test looks at what is drawn."""
    if "good_samples" not in request.node.name:
        monkeypatch.setattr(cas_report, "draw_plot", lambda *args: b"")


def values(result):
    return {(row.extra["trained_on"], row.metric): row.value for row in result.metrics.rows}


def test_good_samples_score_as_real_images_do(folder, trainings):
    result = run(options(folder), Told())
    assert values(result) == {
        (name, metric): 1.0 for name in ("samples", "real") for metric in ("cas_top1", "cas_top5")
    }
    assert trainings[0] == "samples"
    again = run(options(folder), Told())
    assert again.metrics.to_json() == result.metrics.to_json()
    assert len(trainings) <= 2, "the same command has nothing left to do"
    _every_output_is_there(folder / "cas", result)


def _every_output_is_there(out, result):
    assert all(path.is_file() for path in result.written)
    lines = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
    assert [line["class"] for line in lines] == list(COLOURS)
    assert lines[0]["tested"] == "20"
    assert lines[0]["verdict"] == "not told apart"
    assert json.loads((out / "classes.json").read_text())["classes"][2]["top1"] == 1.0
    assert len(json.loads((out / "table.json").read_text())["rows"]) == 4
    assert "trained_on" in (out / "table.csv").read_text().splitlines()[0]
    with Image.open(out / "cas.png") as picture:
        picture.load()
    assert not (out / "best.png").exists(), "no class gains or loses"
    assert not (out / "worst.png").exists()
    assert not (out / "samples" / "checkpoints").exists()


def test_the_convention_says_how_it_was_trained(folder):
    row = run(options(folder), Told()).metrics.rows[0]
    assert row.convention.num == 48
    assert row.convention.balance == "3 classes × 16"
    assert "small" in row.convention.extractor
    assert row.reference == "val"
    assert row.reference_num == 60
    assert row.settings["k"] == 1
    assert row.settings["lr"] == 0.1
    assert row.settings["label_smoothing"] == 0.1
    assert row.uncertainty == 0


def test_top_5_of_three_classes_is_top_3_and_says_so(folder):
    table = run(options(folder), Told()).metrics
    assert table.rows[1].settings["k"] == 3
    assert any("first 3 of 3 classes" in line for line in table.notes)


def test_labels_that_are_all_wrong_score_0_and_the_reference_is_not_trained_again(
    folder, trainings
):
    run(options(folder), Told())
    trainings.clear()
    arrays = coloured(balanced(16), 3)
    arrays["labels"] = (arrays["labels"] + 1) % 3
    write_samples(folder / "wrong.h5", arrays)
    result = run(options(folder, "wrong.h5", out="wrong"), Told())
    assert values(result)[("samples", "cas_top1")] == 0
    assert values(result)[("real", "cas_top1")] == 1
    assert trainings == ["samples"]


def test_labels_that_mean_nothing_score_as_chance_does(folder):
    noise = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype(np.uint8)
    write_samples(folder / "noise.h5", coloured(balanced(16), 3) | {"images/8": noise})
    write_data(folder / "grey.h5", colours={name: (128, 128, 128) for name in COLOURS}, val=80)
    score = run(options(folder, "noise.h5", out="noise", ref="grey.h5"), Told())
    assert values(score)[("samples", "cas_top1")] == pytest.approx(1 / 3, abs=0.13)  # 4 errors
    assert score.metrics.rows[0].uncertainty == pytest.approx(0.03, abs=0.01)


def test_the_class_that_is_missing_loses_most(folder):
    labels = np.array([y for y in balanced(20) if y != 1])
    write_samples(folder / "two.h5", coloured(labels, 3))
    result = run(options(folder, "two.h5", out="two"), Told())
    assert result.lose_most[0]["class"] == "bird"
    assert result.lose_most[0]["gain"] == -1
    assert (result.better_than_real, result.certainly_better, result.certainly_worse) == (0, 0, 1)
    assert [line["verdict"] for line in result.lose_most] == ["worse"]
    lines = write_lines(result)
    said = "accuracy rises in 0 of 3 classes, certainly in 0; it falls in 1, certainly in 1."
    assert f"conclusion  By samples instead of real images {said}" in lines
    assert not [line for line in lines if line.startswith(("better than real", "certainly better"))]
    with Image.open(folder / "two/worst.png") as picture:
        picture.load()
    assert not (folder / "two/best.png").exists()
    notes = result.metrics.gather_notes()
    assert any("1 of 3 classes have no sample" in line for line in notes)
    # 20 samples of apple and cat each, and train has 16 of each class.
    assert any("48 real images against 40 samples: of 2" in line for line in notes)
    assert {row.convention.num for row in result.metrics.rows} == {40, 48}


def test_a_picture_that_an_earlier_version_drew_of_no_class_goes(folder):
    run(options(folder), Told())
    pictures = [folder / "cas" / name for name in ("best.png", "worst.png")]
    for path in pictures:
        path.write_bytes(b"of classes that neither gain nor lose")
    run(options(folder), Told())
    assert not any(path.exists() for path in pictures)


def test_real_images_are_as_many_as_samples_of_each_class(folder):
    write_samples(folder / "few.h5", coloured([0, 0, 0, 1, 2, 2], 3))
    with open_store(folder / "few.h5") as store, open_store(folder / "data.h5") as ref:
        work = plan_work(options(folder, "few.h5"), store, ref, CPU)
        assert work.real.counts.tolist() == [3, 1, 2]
        assert work.real.images.labels.tolist() == work.real.part.labels[work.real.rows].tolist()
        rows = work.real.take_batches(work.recipe, World()).choose_rows(1)
        assert set(rows.tolist()) == set(work.real.rows.tolist())


def test_training_never_reads_val(folder):
    """Other validation images, the same weights to the bit, on samples and on real images."""
    write_data(folder / "other.h5", val_seed=77)
    weights = []
    for ref in ("data.h5", "other.h5"):
        with open_store(folder / "samples.h5") as store, open_store(folder / ref) as data:
            work = plan_work(options(folder, ref=ref, steps=3), store, data, CPU)
            for training in (work.samples, work.real):
                assert training.part.name != "val"
                fit = Fit(work.recipe, CPU, World())
                directory = folder / "unread" / ref / training.name
                directory.mkdir(parents=True)
                cas_training.train(fit, training, directory, Stop(), Session(CPU))
                weights.append([p.detach().clone() for p in fit.parameters])
    for mine, theirs in zip(weights[:2], weights[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("at", [5, 12 + 60 + 9])  # within samples, and within the reference
def test_a_stopped_run_ends_in_the_same_bytes(folder, tmp_path, monkeypatch, at):
    run(options(folder), Told())
    for name in ("data.h5", "samples.h5"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)

    def interfere(done):
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=f"step {at if at < 12 else 9} of 12"):
        run(options(tmp_path), Told(interfere))
    told = Told()
    run(options(tmp_path), told)
    assert any("from step" in line for line in told.lines)
    for name in ("samples/outcome.json", "classes.json", "classes.csv"):
        assert (tmp_path / "cas" / name).read_bytes() == (folder / "cas" / name).read_bytes()
    (mine,) = (tmp_path / "data.h5.stats").glob("cas-*/outcome.json")
    theirs = folder / mine.relative_to(tmp_path)
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_kill_costs_the_steps_since_the_last_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cas_training, "SAVE_SECONDS", 0.0)

    def kill(done):
        if done == 7:
            raise KeyboardInterrupt

    asked = options(folder, out=tmp_path / "cas")
    with pytest.raises(KeyboardInterrupt):
        run(asked, Told(kill))
    told = Told()
    run(asked, told)
    assert any("from step 6 of 12" in line for line in told.lines)
    mine, theirs = (at / "cas/samples/outcome.json" for at in (tmp_path, folder))
    run(options(folder), Told())
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_kill_while_the_directory_is_claimed_is_no_other_score(folder, tmp_path):
    """The name of the file that says whose the directory is was not there yet."""
    out = tmp_path / "cas"
    out.mkdir()
    (out / ".cas.json.01234567.partial").write_bytes(b'{"half')
    assert plan(options(folder, out=out), Told())["samples"] == 48
    run(options(folder, out=out), Told())
    assert not list(out.glob(".*.partial"))
    other = tmp_path / "other"
    other.mkdir()
    (other / ".hidden").touch()
    with pytest.raises(WouldOverwriteError, match="no directory of cdm eval cas"):
        run(options(folder, out=other), Told())


def test_a_directory_that_is_removed_meanwhile_says_in_the_end_what_it_is(folder, tmp_path):
    out = tmp_path / "cas"
    run(options(folder, out=out), Told(lambda done: done == 7 and shutil.rmtree(out)))
    assert (out / "cas.json").exists()
    run(options(folder, out=out), Told())


def test_a_kill_while_checkpoints_are_removed_leaves_none_for_good(folder, trainings):
    run(options(folder), Told())
    (real,) = (folder / "data.h5.stats").glob("cas-*")
    for directory in (folder / "cas/samples", real):
        left = directory / "checkpoints/step-00000012"
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"half")
    trainings.clear()
    run(options(folder), Told())
    assert trainings == []
    for directory in (folder / "cas/samples", real):
        assert not (directory / "checkpoints").exists()


def test_a_damaged_checkpoint_is_passed_over(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cas_training, "SAVE_SECONDS", 0.0)

    def kill(done):
        if done == 7:
            raise KeyboardInterrupt

    asked = options(folder, out=tmp_path / "cas")
    with pytest.raises(KeyboardInterrupt):
        run(asked, Told(kill))
    newest = tmp_path / "cas/samples/checkpoints/step-00000006/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    told = Told()
    run(asked, told)
    assert any("from step 5 of 12" in line for line in told.lines)


def test_a_damaged_outcome_is_made_again(folder, trainings):
    run(options(folder), Told())
    path = folder / "cas/samples/outcome.json"
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    trainings.clear()
    run(options(folder), Told())
    assert trainings == ["samples"]
    assert path.read_bytes() == good


def test_what_is_advised_where_the_record_is_damaged_makes_the_score_again(
    folder, tmp_path, trainings
):
    """Outcomes stay, a checkpoint of nobody knows which recipe does not."""
    out = tmp_path / "cas"
    result = run(options(folder, out=out), Told())
    good = {path.name: path.read_bytes() for path in (*result.written, out / "cas.json")}
    (out / "cas.json").write_bytes(b"{}")
    (out / "real/checkpoints").mkdir(parents=True)
    trainings.clear()
    with pytest.raises(BadInputError, match=r"cas\.json: cdm_version: is missing") as error:
        run(options(folder, out=out), Told())
    assert error.value.next.startswith(f"rm -r {out}/cas.json {out}/table.json")
    type_advice(error.value)
    assert [path.name for path in out.glob("*/*") if path.name != ".lock"] == ["outcome.json"]
    run(options(folder, out=out), Told())
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == good
    assert trainings == []


def test_a_directory_without_its_record_that_holds_more_is_not_taken(folder, tmp_path):
    for name in ("samples/checkpoints", "samples/mine", "other", "table.json"):
        out = tmp_path / name.replace("/", "-")
        (out / name).mkdir(parents=True)
        with pytest.raises(WouldOverwriteError, match="no directory of cdm eval cas"):
            run(options(folder, out=out), Told())


def test_another_configuration_is_refused_and_named(folder):
    run(options(folder), Told())
    before = (folder / "cas/table.json").read_bytes()
    with pytest.raises(WouldOverwriteError, match=r"--lr was 0\.1, is 0\.2"):
        run(options(folder, lr=0.2), Told())
    for wrong, words in (
        ({"num": 24}, ": STORE was [0-9a-f]{12}…, is"),
        ({"seed": 1}, ": --seed was 0, is 1"),
    ):
        with pytest.raises(WouldOverwriteError, match=words):
            run(options(folder, **wrong), Told())
    assert (folder / "cas/table.json").read_bytes() == before


def test_a_directory_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").write_text("precious")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(WouldOverwriteError, match="no directory of cdm eval cas"):
            run(options(folder, out=out), Told())


@pytest.fixture(scope="module")
def misfits(folder):
    """Stores that do not fit, by name."""
    write_data(folder / "names.h5", classes=("apple", "bird", "dog"))
    write_data(folder / "big.h5", side=16)
    write_data(folder / "two-channels.h5", channels=2)
    write_store(folder / "no-val.h5", "prepared", {"train": coloured(balanced(4), 1)},
                classes=tuple(COLOURS))  # fmt: skip
    write_store(folder / "begun.h5", "samples", {"": coloured(balanced(40), 1)},
                classes=tuple(COLOURS), blocks=1)  # fmt: skip
    (folder / "ref.npz").write_bytes(b"")
    alone = {"ids": np.arange(8), "labels": np.zeros(8, np.int64),
             "images/8": np.zeros((8, 8, 8, 3), np.uint8)}  # fmt: skip
    write_store(folder / "one.h5", "prepared", {"train": alone, "val": alone}, classes=("apple",))
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"ref": "names.h5"}, MismatchError, "class 2 is 'cat' in STORE, 'dog' in --ref"),
        ({"ref": "big.h5"}, MismatchError, "STORE has 8×8, --ref has 16"),
        ({"ref": "two-channels.h5"}, MismatchError, "STORE has 3 channels, --ref 2"),
        ({"ref": "no-val.h5"}, MismatchError, "no val split"),
        ({"ref": "samples.h5"}, MismatchError, "no val split"),
        ({"ref": "ref.npz"}, MismatchError, "needs real images"),
        ({"ref": "nothing.h5"}, MissingError, "does not exist"),
        ({"store": "begun.h5"}, MissingError, "unfinished"),
        ({"store": "one.h5", "ref": "one.h5"}, MismatchError, "one class"),
        ({"store": "data.h5", "split": "val"}, UsageError, "cannot train on it"),
        ({"split": "train"}, UsageError, "--split train"),
        ({"resolution": 16}, UsageError, "--resolution 16: "),
        ({"num": 1000}, UsageError, "--num 1000"),
    ],
)
def test_misfits_are_seen_before_training(misfits, trainings, changes, error, says):
    with pytest.raises(error, match=says):
        run(options(misfits, **{"out": "none"} | changes), Told())
    assert not trainings
    assert not (misfits / "none").exists()


def test_damaged_samples_are_refused_before_training(folder, tmp_path):
    path = write_samples(tmp_path / "samples.h5")
    with open_store(path) as store:
        offset = store.parts[""]._find_place("images/8", 3)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BadInputError, match="digest"):
        run(options(folder, store=path, out=tmp_path / "cas"), Told())
    assert not (tmp_path / "cas/samples/outcome.json").exists()


def test_samples_damaged_after_the_first_checkpoint_are_refused(folder, tmp_path, monkeypatch):
    """A training that is continued reads its samples as carefully as one that begins."""
    monkeypatch.setattr(cas_training, "SAVE_SECONDS", 0.0)
    path = write_samples(tmp_path / "samples.h5")
    asked = options(folder, store=path, out=tmp_path / "cas")

    def kill(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asked, Told(kill))
    with open_store(path) as store:
        offset = store.parts[""]._find_place("images/8", 3)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(99))
    with pytest.raises(BadInputError, match="do not have the digest"):
        run(asked, Told())


def test_samples_rewritten_while_they_are_trained_on_are_noticed(folder, tmp_path):
    path = write_samples(tmp_path / "samples.h5")
    with open_store(path) as store:
        offset = store.parts[""]._find_place("images/8", 3)

    def rewrite(done):
        if done == 7:
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(bytes(99))

    with pytest.raises(BadInputError, match="do not have the digest"):
        run(options(folder, store=path, out=tmp_path / "cas"), Told(rewrite))
    assert not (tmp_path / "cas/samples/checkpoints/step-00000012").exists()


def test_the_train_split_of_real_images_can_be_the_samples(folder):
    with open_store(folder / "data.h5") as store, open_store(folder / "data.h5") as ref:
        work = plan_work(options(folder, "data.h5"), store, ref, CPU)
    assert work.samples.part.name == "train"
    assert work.samples.digest == work.real.digest


def test_divergence_ends_the_run_with_the_weights_untouched(folder, tmp_path, monkeypatch):
    poison = Fit.accumulate

    def accumulate(self, step, batch):
        return poison(self, step, batch) * torch.nan

    monkeypatch.setattr(Fit, "accumulate", accumulate)
    with pytest.raises(DivergedError, match="finite"):
        run(options(folder, out=tmp_path / "cas"), Told())
    assert not (tmp_path / "cas/samples/outcome.json").exists()


def test_a_reference_that_cannot_be_kept_beside_the_data(folder, tmp_path):
    for name in ("data.h5", "samples.h5"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "data.h5.stats").write_text("no directory")
    result = run(options(tmp_path), Told())
    assert (tmp_path / "cas/real/outcome.json").is_file()
    assert values(result)[("real", "cas_top1")] == 1


def test_the_plan_counts_and_writes_nothing(folder, tmp_path):
    for name in ("data.h5", "samples.h5"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    before = torch.get_rng_state()
    planned_first = plan(options(tmp_path), Told())
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.h5", "samples.h5"]
    assert planned_first["classifiers_to_train"] == 2
    assert planned_first["network_evaluations"] == 2 * (12 * 12 + 60)
    assert planned_first["estimated_by"] == TIMED
    run(options(folder), Told())
    planned = plan(options(folder), Told())
    assert planned["classifiers_to_train"] == planned["estimated_seconds"] == 0


def test_the_time_of_a_batch_without_room_is_reckoned(folder, monkeypatch):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "randint", refuse)
    assert plan(options(folder, out="planned"), Told())["estimated_by"] == RECKONED


@pytest.mark.parametrize("taken", [0.05, 50.0, None])
def test_steps_are_timed_unless_they_would_take_long(folder, monkeypatch, taken):
    """No count of operations tells what it costs to start them."""
    seen = []

    def step(fit, number, batch):
        seen.append(len(batch.y))
        if taken is None:
            raise MemoryFloorError("no room", next="less")
        time.sleep(0.05)

    monkeypatch.setattr(Fit, "step", step)
    if taken == 50.0:
        monkeypatch.setattr(cas_cost, "measure_flops", lambda *_: 1e6)
    asked = options(folder, out="planned", steps=1000, seed=3)
    planned = plan(asked, Told())
    assert planned["estimated_by"] == (TIMED if taken == 0.05 else RECKONED)
    if taken == 0.05:
        assert 2 * 1000 * 0.05 < planned["estimated_seconds"] < 2 * 1000 * 0.1
    assert set(seen) == (set() if taken == 50.0 else {12})


def test_extremes_are_never_the_same_class_and_leave_out_the_untested():
    gained = np.array([0.1, np.nan, -0.4, 0.3, 0.0])
    assert find_extremes(gained) == ([3, 0], [2])
    assert find_extremes(np.zeros(4)) == ([], [])
    best, worst = find_extremes(np.arange(-50.0, 51.0))
    assert best == [100, 99, 98, 97, 96, 95]
    assert worst == [0, 1, 2, 3, 4, 5]


def test_a_torchvision_that_does_not_load_leaves_nothing_behind(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError):
        run(options(folder, net="resnet18", out=folder / "broken"), Told())
    assert not (folder / "broken").exists()


def test_epochs_count_samples():
    fixed = {"resolution": 256, "channels": 3, "num_classes": 10, "precision": "bf16", "seed": 0}
    made = choose_recipe(CasOptions(), num=50_000, **fixed)
    assert made.steps == 17_579  # 90 epochs of 50 000 images, 256 at a time
    assert made.warmup == 977
    assert made.lr == 0.1
    assert choose_recipe(as_typed(CasOptions, batch_size=1024), num=50_000, **fixed).lr == 0.4


def test_cas_is_no_metric_of_a_list():
    with pytest.raises(UsageError, match="cas stands alone") as caught:
        as_typed(EvalOptions, metrics=("fid", "cas"))
    assert caught.value.next.startswith("cdm eval cas")
