"""Mirrors cdm_cli/jobs/judging/evaluate.py.

Every number, what stands beside it, and every refusal.

Here too: cost.py, header.py, panel.py, rows.py.
"""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.judging import rows as evaluate_rows
from cdm_cli.jobs.judging.evaluate import plan, run
from cdm_cli.jobs.judging.images import from_arrays, from_store
from cdm_cli.jobs.judging.judge import open_judge
from cdm_cli.jobs.judging.panel import measure, open_panel
from cdm_cli.jobs.judging.result import MEANS
from cdm_cli.jobs.runtime.foretold import TIMED
from cdm_cli.metrics import inception
from cdm_cli.metrics.kernel import Discrepancy
from cdm_cli.metrics.neighbours import prdc
from cdm_cli.names import METRICS
from cdm_cli.options.judging import EvalOptions
from cdm_cli.options.sampling import Compute
from tests.asking import as_typed
from tests.jobs.judging.making import (
    CPU,
    SAMPLES,
    TRAIN,
    VAL,
    counted,
    options,
    permuted,
    write_judge,
    write_workspace,
)
from tests.metrics.whole import extract, frechet_distance, inception_score
from tests.tiny import CLASSES, Told, write_store


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    return tmp_path


def judged(arrays):
    """Features and probabilities of a part, without the job."""
    judge = open_judge(options().judge, torch.device("cpu")).extractor
    return extract(judge, [torch.from_numpy(arrays["images/8"]).permute(0, 3, 1, 2)])


def moments(x):
    return x.double().mean(0).numpy(), np.cov(x.double().numpy(), rowvar=False)


def shown(table):
    return {(row.metric, row.reference): row for row in table.rows}


def test_the_numbers_are_those_of_the_metrics_on_the_same_features():
    rows = shown(run(options("fid", "is", "kid", "prdc", "accuracy"), Told()).table)
    x, p = judged(SAMPLES)
    real = {"train": judged(TRAIN).features, "val": judged(VAL).features}
    for name, y in real.items():
        expected = frechet_distance(*moments(x), *moments(y))
        assert rows["fid", name].value == pytest.approx(expected, rel=1e-6)
        assert rows["precision", name].value == prdc(x, y).precision.mean
        assert rows["coverage", name].value == prdc(x, y).coverage.mean
        full = Discrepancy(x, y).value()
        row = rows["kid", name]
        assert abs(row.value - full) < row.uncertainty
    assert rows["is", ""].value == pytest.approx(inception_score(p, SAMPLES["ids"]).mean, rel=1e-6)
    share = (p.argmax(1).numpy() == SAMPLES["labels"]).mean()
    assert rows["accuracy", ""].value == pytest.approx(share)


def test_fid_is_always_against_train_and_val_and_their_gap_is_told():
    rows = shown(run(options("fid"), Told()).table)
    train, val, gap = (rows["fid", "train"], rows["fid", "val"], rows["fid_gap", "val - train"])
    assert gap.value == pytest.approx(val.value - train.value, rel=1e-12)
    assert gap.corrected == pytest.approx(val.corrected - train.corrected, rel=1e-9)
    assert gap.uncertainty < train.uncertainty + val.uncertainty
    assert (train.reference_num, val.reference_num) == (90, 60)


def test_beside_each_number_its_uncertainty_and_convention():
    result = run(options("all"), Told())
    with open_store("samples.h5") as store, open_store("data.h5") as data:
        digest, real = store.digest, data.digest
    judge = open_judge(options().judge, torch.device("cpu")).extractor
    names = {row.metric for row in result.table.rows}
    assert names == {
        "fid", "fid_gap", "is", "kid", "precision", "recall", "density", "coverage", "accuracy",
        "nn_distance", "nn_distance_val", "nn_close",
    }  # fmt: skip
    assert names == set(MEANS)  # each has words
    for row in result.table.rows:
        assert row.uncertainty is not None, row.metric
        assert row.uncertainty_of, row.metric
        convention = row.convention
        assert (convention.num, convention.balance) == (75, "3 classes × 25")
        assert (convention.extractor, convention.extractor_digest) == (
            "classifier-judge", judge.digest,
        )  # fmt: skip
        assert convention.resize == judge.resize
        assert (convention.quantisation, convention.resolution) == ("uint8", 8)
        assert convention.samples_digest == digest
        if row.reference in ("train", "val"):
            assert row.reference_digest == real
        known = row.metric in ("fid", "fid_gap", "is", "kid", "accuracy")
        assert len(row.without) == len(row.without_two) == 10 * known
        assert bool(row.groups) == known
        assert (row.corrected is not None) == row.metric.startswith("fid")
    told = json.loads(json.dumps(result.model_dump()))
    fid = shown(result.table)["fid", "val"]
    assert told["metrics"][1]["corrected"] == fid.corrected < fid.value
    assert told["metrics"][1]["jackknife"] == {
        "groups": fid.groups, "without": list(fid.without), "without_two": list(fid.without_two)
    }  # fmt: skip
    assert len({row.groups for row in result.table.rows if row.groups}) == 1
    assert told["convention"]["extractor_digest"] == judge.digest
    assert told["references"] == {"train": real, "val": real}
    assert set(told["uncertainty"]) == names


def test_all_is_one_pass_over_the_samples(monkeypatch):
    run(options("all"), Told())  # leaves the statistics of train and val
    seen = counted(monkeypatch)
    run(options("fid", "is", "kid", "prdc", "accuracy"), Told())
    assert sum(seen) == 75
    seen.clear()
    run(options("all"), Told())
    assert sum(seen) == 75 + 90  # and the training images, for the nearest


@pytest.mark.parametrize("by", ["class", "reversed", "random"])
def test_the_order_of_the_store_does_not_matter(by):
    order = {
        "class": np.argsort(SAMPLES["labels"], kind="stable"),
        "reversed": np.arange(75)[::-1],
        "random": np.random.default_rng(0).permutation(75),
    }[by]
    write_store("other.h5", "samples", {"": permuted(SAMPLES, order)})
    metrics = ("fid", "is", "kid", "prdc", "accuracy")
    here = run(options(*metrics), Told()).table.rows
    there = run(options(*metrics, stores=("other.h5",)), Told()).table.rows
    for one, other in zip(here, there, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-5), one.metric
        assert other.uncertainty == pytest.approx(one.uncertainty, rel=1e-4), one.metric


def test_several_processes_find_what_one_finds(workspace, in_pair):
    one = run(options("all"), Told())
    again = options("all", compute=Compute(device="cpu", batch_size=16, gpus=2), out="two.json")
    two = run(again, Told())
    for mine, theirs in zip(one.table.rows, two.table.rows, strict=True):
        assert theirs.value == pytest.approx(mine.value, rel=1e-5), mine.metric
        assert theirs.uncertainty == pytest.approx(mine.uncertainty, rel=1e-4), mine.metric
    for mine, theirs in zip(one.neighbours, two.neighbours, strict=True):
        assert theirs == mine | {"distance": pytest.approx(mine["distance"], rel=1e-4)}
    assert json.loads((workspace / "two.json").read_text())["rows"]


def test_too_few_samples_for_the_conventions_are_said():
    notes = run(options("fid", "is"), Told()).table.notes
    assert any("from 75 samples" in line and "50000 is the convention" in line for line in notes)
    assert any("judged by classifier-judge" in line for line in notes)
    notes = run(options("fid", num=12), Told()).table.notes
    assert any("12 samples in 16 dimensions" in line for line in notes)


@pytest.mark.parametrize(
    ("num", "said"), [(9_999, "(9999;"), (10_000, "model selection"), (50_000, None)]
)
def test_conventional_numbers_of_samples(num, said):
    judge = open_judge(options().judge, torch.device("cpu"))
    images = np.broadcast_to(np.zeros((1, 8, 8, 3), np.uint8), (num, 8, 8, 3))
    many = from_arrays("many", images, np.zeros(num), CLASSES)
    convention = evaluate.state_convention(many, judge, 0)
    notes = list(evaluate_rows.list_notes(("fid",), convention, judge.extractor, []))
    assert any(said in line for line in notes) if said else not any("50000" in n for n in notes)


def test_num_takes_a_balanced_share(monkeypatch):
    order = np.argsort(SAMPLES["labels"], kind="stable")
    write_store("ordered.h5", "samples", {"": permuted(SAMPLES, order)})
    seen = counted(monkeypatch)
    run(options("fid"), Told())
    seen.clear()
    (row, *_) = run(options("fid", stores=("ordered.h5",), num=30), Told()).table.rows
    assert sum(seen) == 30
    assert (row.convention.num, row.convention.balance) == (30, "3 classes × 10")


def test_one_panel_judges_many_sets():
    """What sweep-s does: the judge and the references once, then set after set."""
    panel = open_panel(options().judge, 8, CPU)
    images = from_arrays("x", VAL["images/8"], VAL["labels"], CLASSES)
    table = measure(panel, images, ("fid", "accuracy"))
    assert table.value("fid", "val") == pytest.approx(0, abs=1e-9)
    assert table.value("fid", "train") > 1e-5
    assert table.value("accuracy") <= 1


def test_a_mode_that_the_judge_does_not_have_is_told():
    for mode, told in (("clean", 0), ("legacy-pytorch", 1)):
        report = Told()
        open_panel(replace(options().judge, mode=mode), 8, replace(CPU, report=report))
        assert sum("--mode legacy-pytorch: of no effect" in line for line in report.lines) == told


def test_tables_are_written_and_only_ours_replaced(workspace):
    result = run(options("fid", out="t.json"), Told())
    assert [str(path) for path in result.written] == ["t.json"]
    held = json.loads((workspace / "t.json").read_text())
    assert held["rows"][0]["convention"]["num"] == 75
    run(options("is", out="t.json"), Told())
    assert json.loads((workspace / "t.json").read_text())["rows"][0]["metric"] == "is"
    for _ in range(2):
        run(options("fid", out="t.csv"), Told())
    records = list(csv.DictReader(io.StringIO((workspace / "t.csv").read_text())))
    assert [record["reference"] for record in records] == ["train", "val", "val - train"]
    assert records[0]["extractor"] == "classifier-judge"


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.png"])
def test_what_is_not_ours_is_never_replaced(workspace, monkeypatch, name):
    (workspace / name).write_text("{}")
    seen = counted(monkeypatch)
    out = name.replace(".png", ".json")
    with pytest.raises(WouldOverwriteError, match=name):
        run(options("nn", out=out), Told())
    assert (workspace / name).read_text() == "{}"
    assert seen == []  # before any work


def test_a_picture_of_ours_is_replaced(workspace):
    for seed in (0, 1):
        run(options("nn", num=10, seed=seed), Told())
    assert (workspace / "nearest.png").read_bytes().startswith(b"\x89PNG")


def test_another_kind_of_table_is_refused():
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        run(options("fid", out="table.txt"), Told())


def test_words_for_metrics():
    assert EvalOptions(("fid", "kid", "fid")).names == ("fid", "kid")
    rest = [metric for metric in METRICS if metric != "is"]
    assert EvalOptions(("is", "all")).names == ("is", *rest)
    with pytest.raises(UsageError, match="did you mean fid"):
        as_typed(EvalOptions, metrics=("fidd",))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"stores": ("nothing.h5",)}, MissingError, "nothing"),
        ({"ref": "nothing.h5"}, MissingError, "--ref nothing"),
        ({"features": "nothing"}, MissingError, "nothing"),
        ({"resolution": 32}, UsageError, "--resolution 32: .* has 8, 16"),
        ({"num": 76}, UsageError, "has 75"),
        ({"split": "val"}, UsageError, "--split val"),
        ({"ref": "small.h5", "resolution": 16}, MismatchError, "samples 16"),
        ({"stores": ("half.h5",)}, MissingError, "unfinished"),
        ({"ref": "half.h5"}, MissingError, "unfinished"),
        ({"stores": ("one.h5",)}, MismatchError, "at least 2"),
    ],
)
def test_misfits_are_told(changes, error, says):
    write_store("small.h5", "samples", {"": {k: v for k, v in VAL.items() if k != "images/16"}})
    write_store("half.h5", "samples", {"": SAMPLES}, blocks=1)
    write_store("one.h5", "samples", {"": {name: a[:1] for name, a in SAMPLES.items()}})
    with pytest.raises(error, match=says):
        run(options("fid", **changes), Told())


@pytest.mark.parametrize(
    ("metric", "num", "error", "says"),
    [
        ("is", 19, UsageError, "is: 19 images are too few"),
        ("prdc", 5, UsageError, "prdc: 5 images are too few"),
    ],
)
def test_too_few_samples_are_refused_alone_and_left_out_of_all(metric, num, error, says):
    with pytest.raises(error, match=says):
        run(options(metric, num=num), Told())
    table = run(options("all", num=num), Told()).table
    assert any(line.startswith("left out") and says in line for line in table.notes)
    assert table.value("fid") > 0


def test_accuracy_needs_a_judge_of_the_same_classes(workspace):
    write_judge(workspace / "runs/other", classes=("a", "b", "c"))
    with pytest.raises(MismatchError, match="does not know the classes"):
        run(options("accuracy", features="other"), Told())
    table = run(options("all", features="other"), Told()).table
    assert any("left out: accuracy" in line for line in table.notes)
    assert any("cas is not in all" in line for line in table.notes)


def test_without_inception_the_line_says_where_it_belongs_and_what_else_to_do(monkeypatch):
    place = "/tmp/inception-2015-12-05.pt"
    monkeypatch.setattr(
        inception, "list_weights_places", lambda file: [evaluate.Path(place + ".none")]
    )
    with pytest.raises(MissingError) as caught:
        run(options("fid", features="inception"), Told())
    line = str(caught.value)
    for words in (place, "https://", "cdm train features --preset classifier"):
        assert words in line
    assert caught.value.exit_code == 66


def test_a_flipped_byte_in_a_store_is_noticed(workspace):
    with open_store("samples.h5") as store:
        place = store.parts[""].images(8).offset
    with open("samples.h5", "r+b") as file:
        file.seek(place + 70)
        byte = file.read(1)
        file.seek(place + 70)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(BadInputError, match=r"samples 0\.\."):
        run(options("fid"), Told())


def test_real_images_can_be_judged_like_samples():
    with open_store("data.h5") as store:
        images = from_store(store, None, 8, None, 0)
        assert images.name.endswith(":val")
    assert run(options("fid", stores=("data.h5",)), Told()).table.value(
        "fid", "val"
    ) == pytest.approx(0, abs=1e-9)
    train = run(options("fid", stores=("data.h5",), split="train"), Told()).table
    assert train.value("fid", "train") == pytest.approx(0, abs=1e-9)
    said = "images of data.h5:train are among those of train: compared with themselves"
    assert [note for note in train.notes if "themselves" in note] == [said]


def test_images_that_are_compared_with_themselves_are_said_so(workspace):
    own = options("fid", stores=("samples.h5",), ref="samples.h5")
    assert any("are among those of --ref" in note for note in run(own, Told()).table.notes)
    assert not any("themselves" in note for note in run(options("fid"), Told()).table.notes)


def test_only_what_is_written_needs_a_place(workspace, monkeypatch):
    """In a directory that takes no files, numbers are still printed."""
    needed = []
    monkeypatch.setattr(
        "cdm_cli.jobs.judging.evaluate.check_room", lambda path, size: needed.append(path)
    )
    run(options("fid"), Told())
    assert needed == []
    run(options("fid", "nn", out="t.json"), Told())
    assert [path.name for path in needed] == ["t.json", "t.png"]


def test_a_dry_run_counts_what_will_be_judged_and_judges_nothing(workspace):
    asked = options("fid", "kid", out="t.json")
    before = sorted(workspace.rglob("*"))
    found = plan(asked, Told())
    assert sorted(workspace.rglob("*")) == before
    assert (found["images_judged"], found["real_images_judged"]) == (75, 150)
    assert (found["judge"], found["estimated_by"]) == ("classifier-judge", TIMED)
    run(asked, Told())
    kept = sum(path.stat().st_size for path in (workspace / "data.h5.stats").iterdir())
    assert found["disk_bytes"] == pytest.approx(kept, rel=0.2)
    shutil.copy("samples.h5", "others.h5")
    again = plan(options("fid", against="others.h5"), Told())
    assert (again["images_judged"], again["real_images_judged"]) == (150, 0)
    assert again["disk_bytes"] == 0


def test_a_dry_run_refuses_what_the_run_would(workspace):
    (workspace / "t.json").write_text("{}")
    with pytest.raises(WouldOverwriteError, match=r"t\.json"):
        plan(options("fid", out="t.json"), Told())
    with pytest.raises(UsageError, match="--num 1000"):
        plan(options("fid", num=1000), Told())
