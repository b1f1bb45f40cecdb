"""Mirrors cdm_cli/jobs/sweep/sweep.py: every point is what upsample and eval give, made once."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.config import ConditioningConfig, ScheduleConfig
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sweep.choice import (
    Judged,
    choose,
    choose_of_each,
    compare_points,
    conclude,
    entitle,
    explain_verdicts,
)
from cdm_cli.jobs.sweep.plot import write_plot
from cdm_cli.jobs.sweep.sweep import plan, run
from cdm_cli.jobs.sweep.table import SweepTable, join_table
from cdm_cli.jobs.sweep.times import choose_default_times
from cdm_cli.metrics.table import Convention, MetricRow
from cdm_cli.options.judging import EvalOptions
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from tests.asking import as_typed, type_advice
from tests.jobs.sweep.sweeping import (
    CPU,
    JUDGE,
    NUM,
    NUM_VAL,
    files,
    judged_images,
    write_judge,
    write_workspace,
)
from tests.tiny import (
    COSINE,
    Told,
    arrays_of,
    contents,
    continuous_config,
    in_new_folder,
    net_of,
    sr_config,
    write_stage,
    write_store,
)

SWEEP = Path("sweep")
ALL = ["none-s0000", "truncated-s0005", "non-truncated-s0005", "ground-truth-s0000",
       "ground-truth-s0005"]  # fmt: skip


SR = sr_config(4, 8)


def options(**changes):
    return as_typed(SweepSOptions, **({"s": (5, 0), "judge": JUDGE} | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, and a sweep in it that nothing disturbed."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, SR)
        run(options(ground_truth=True), Told())
    return home


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    """The same workspace, without the sweep."""
    home = tmp_path / "home"
    shutil.copytree(made, home, ignore=shutil.ignore_patterns("sweep"))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def swept(made, workspace):
    """The same workspace and the sweep."""
    shutil.copytree(made / "sweep", workspace / "sweep")
    return workspace


def told(name="sweep"):
    return json.loads((SWEEP / f"{name}.json").read_text())


def values(rows):
    return {(row["metric"], row["reference"]): row["value"] for row in rows}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("none-s0000", {"s": 0}),
        ("non-truncated-s0005", {"s": 5}),
        ("truncated-s0005", {"s": 5, "augment": "truncated"}),
        ("ground-truth-s0005", {"s": 5, "lowres": "data.h5"}),
    ],
)
def test_a_point_is_what_upsample_and_eval_give(swept, name, changes):
    upsample.run(as_typed(UpsampleOptions, **({"compute": CPU} | changes)), Told())
    assert contents("samples.h5") == contents(SWEEP / f"{name}.h5")
    metrics = ("fid", "is", "accuracy")
    table = evaluate.run(as_typed(EvalOptions, metrics=metrics, judge=JUDGE), Told()).table
    rows = [asdict(row) for row in table.rows if row.metric != "fid_gap"]
    assert values(told(name)["rows"]) == values(rows)


def test_the_stage_that_was_chosen_is_told_one_that_was_named_is_not(workspace):
    told, named = Told(), Told()
    plan(options(), told)
    plan(options(model="sr"), named)
    assert told.lines == ["--model runs/sr: the only stage that fits"]
    assert not named.lines


def test_upsample_itself_continues_a_point(swept):
    asked = as_typed(UpsampleOptions, s=5, compute=CPU, out=SWEEP / "non-truncated-s0005.h5")
    assert upsample.run(asked, Told()).made == 0


def test_the_points_are_those_asked_for_once(swept):
    assert sorted(path.stem for path in SWEEP.glob("*.h5")) == sorted(ALL)
    rows = told()["rows"]
    points = list(dict.fromkeys((row["extra"]["augment"], row["extra"]["s"]) for row in rows))
    assert points == [(name.rpartition("-s")[0], int(name[-4:])) for name in ALL]
    assert {row["convention"]["num"] for row in rows} == {NUM, NUM_VAL}
    assert {row["metric"] for row in rows} == {"fid", "is", "accuracy"}


def judged(augment, s, wobble=None, **fids):
    """Return a point; wobble: leave-out values of its FIDs, less these."""
    convention = Convention(
        num=20, balance="", extractor="x", extractor_digest="", resize="", resolution=8
    )
    rows = [
        MetricRow(
            metric="fid", value=fid, uncertainty=1.0, reference=name, convention=convention,
            extra={"augment": augment, "s": s},
            without=() if wobble is None else tuple(fid + wobble),
            groups="" if wobble is None else "mark",
        )
        for name, fid in fids.items()
    ]  # fmt: skip
    return Judged(
        sweep="", augment=augment, s=s, samples="", parents=(), rows=tuple(rows), notes=()
    )


def test_the_lowest_fid_against_train_of_generated_images_is_chosen():
    points = [
        judged("none", 0, train=9.0, val=1.0),
        judged("truncated", 3, train=5.5, val=5.0),
        judged("truncated", 7, train=5.0, val=5.0),
        judged("non-truncated", 5, train=5.0, val=9.0),
        judged("ground-truth", 0, train=1.0, val=1.0),
    ]
    chosen = choose(points)
    assert (chosen.augment, chosen.s, chosen.value) == ("non-truncated", 5, 5.0)
    assert (chosen.reference, chosen.uncertainty) == ("train", 1.0)
    best = {one.augment: one.s for one in choose_of_each(points)}
    assert best == {"none": 0, "truncated": 7, "non-truncated": 5, "ground-truth": 0}
    only = [judged("none", 0, stats=2.0), judged("truncated", 3, stats=1.0)]
    assert (choose(only).s, choose(only).reference) == (3, "stats")


def noise(seed, size):
    return size * np.random.default_rng(seed).normal(size=10)


@pytest.fixture
def undecided():
    """Points of which s = 0 is worse and two cannot be told apart, and two real ones."""
    shared = noise(0, 0.1)
    return [
        judged("none", 0, shared, train=9.0),
        judged("truncated", 3, shared + noise(1, 0.02), train=5.01),
        judged("non-truncated", 5, shared + noise(2, 0.02), train=5.0),
        judged("ground-truth", 0, noise(3, 0.001), train=1.0),
        judged("ground-truth", 5, noise(4, 0.001), train=2.0),
    ]


def test_no_winner_is_crowned_within_the_noise(undecided):
    chosen = choose(undecided)
    assert (chosen.s, chosen.standing, len(chosen.tied)) == (5, "as good as the best", 1)
    assert chosen.tied == ("truncated s = 3",)
    said = conclude(undecided)
    assert said.startswith("2 of 3 points are as good as the best by FID against train of 20 im")
    assert re.search(r"all but s = 0 \(worse by 4\.?\d* ± 0\.\d+\)\.$", said)
    assert entitle(undecided) == "as good as the best by FID against train: 2 of 3 points"
    verdicts = [one.verdict for one in compare_points(undecided)]
    assert verdicts == ["worse", *["as good as the best"] * 2, "best", "worse"]
    told, apart = explain_verdicts(undecided)
    assert told.startswith("FID against train of 20 images a point tells no difference from the ")
    assert apart == "ground-truth points are compared among themselves"
    assert SweepTable(join_table(undecided, chosen), "train").lines()[0][-1].startswith("worse by")


def test_a_winner_beyond_the_noise_is_the_best(undecided):
    clear = [undecided[0], judged("truncated", 3, noise(1, 0.02), train=1.0)]
    assert (choose(clear).standing, choose(clear).tied) == ("best", ())
    assert entitle(clear) == "best by FID against train: truncated s = 3"
    assert conclude(clear).startswith("truncated s = 3 is the best of 2 points by FID against tr")


def test_points_without_leave_out_values_get_no_verdict(undecided):
    old = [*undecided, judged("truncated", 7, train=4.0)]
    assert (choose(old).s, choose(old).standing, choose(old).tied) == (7, None, None)
    assert entitle(old) == "lowest FID against train: truncated s = 7"
    assert conclude(old) == (
        "truncated s = 7 has the lowest FID against train, 4; how surely is not known."
    )
    assert "no verdicts by FID against train: 1 of 4 numbers" in explain_verdicts(old)[0]
    assert [one.point["augment"] for one in compare_points(old)] == ["ground-truth"] * 2
    assert "is the only point" in conclude(undecided[:1])


def test_the_plot_shows_the_band_of_the_undecided(undecided, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "axhspan", lambda self, low, high, **_: drawn.append((low, high)))
    write_plot(tmp_path / "plot.png", undecided, choose(undecided))
    assert drawn == [(5.0, 5.01)]
    write_plot(tmp_path / "plot.png", [judged("none", 0, train=1.0)], choose(undecided))
    assert len(drawn) == 1


def test_the_file_says_what_it_is_of(swept):
    file = told()
    with open_store("lowres.h5") as lowres, open_store("data.h5") as data:
        digests = {parent["role"]: parent["digest"] for parent in file["parents"]}
        assert digests["ref"] == data.digest
        assert {"role": "lowres", "name": "lowres.h5", "digest": lowres.digest} in file["parents"]
    assert len(digests["stage"]) == 64
    assert file["convention"]["extractor"] == "classifier-judge"
    assert file["command"] == (
        "cdm sweep-s lowres.h5 --s 5,0 --ground-truth --out sweep --features judge "
        "--device cpu --batch-size 32"
    )
    assert any("another --seed" in note for note in file["notes"])
    assert any("different conventions (balance, num)" in note for note in file["notes"])


def test_points_keep_what_their_numbers_are_without_some_images(swept):
    """Those of the same ids say so: their differences are paired."""
    kept = {path.stem: json.loads(path.read_text())["rows"] for path in SWEEP.glob("*-s*.json")}
    marks = {name: {row["groups"] for row in rows} for name, rows in kept.items()}
    assert marks["none-s0000"] == marks["truncated-s0005"] != marks["ground-truth-s0005"]
    assert {len(found) for found in marks.values()} == {1}
    for row in [row for rows in kept.values() for row in rows]:
        assert len(row["without"]) == len(row["without_two"]) == 10
    assert {row["groups"] for row in told()["rows"]} == set.union(*marks.values())


def test_table_and_plot(swept):
    with (SWEEP / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["augment"], row["s"]) for row in rows[:2]] == [("none", "0")] * 2
    assert [float(row["value"]) for row in rows] == [row["value"] for row in told()["rows"]]
    with Image.open(SWEEP / "sweep.png") as picture:
        assert picture.width == 1440
    table = run(options(), Told()).table
    assert table.header()[:4] == ["augment", "s", "fid train", "±"]
    assert [line[:2] for line in table.lines()] == [
        ["none", "0"], ["truncated", "5"], ["non-truncated", "5"], ["ground-truth", "0"],
        ["ground-truth", "5"],
    ]  # fmt: skip
    compared = told()["comparisons"]
    assert compared == [asdict(one) for one in table.metrics.comparisons]
    assert [row["verdict"] for row in rows] == [one["verdict"] for one in compared]
    assert float(rows[0]["difference"]) == compared[0]["difference"]
    by_fid = [one for one in compared if (one["metric"], one["reference"]) == ("fid", "train")]
    assert table.header()[-1] == "by FID against train"
    for line, one in zip(table.lines(), by_fid, strict=True):
        assert line[-1].startswith(one["verdict"])
        assert line[:2] == [one["point"]["augment"], str(one["point"]["s"])]
    assert "5 points" not in told()["conclusion"]  # real ones are a family of their own
    assert " 3 points" in told()["conclusion"]


def test_the_same_command_again_does_nothing(swept, monkeypatch):
    before = files(SWEEP)
    seen = judged_images(monkeypatch)
    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    run(options(ground_truth=True), Told())
    assert files(SWEEP) == before
    assert seen == []


def loaded(*_):
    raise AssertionError("weights were loaded")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("evaluations", [30, 300, 650])
def test_a_run_that_is_killed_continues_and_ends_in_the_same_bytes(
    made, workspace, monkeypatch, evaluations
):
    """Killed in a first block, between two blocks of a store, in a later point."""

    def kill(done):
        if done >= evaluations:
            raise KilledError

    with pytest.raises(KilledError):
        run(options(ground_truth=True), Told(kill))
    there = {path.stem for path in SWEEP.glob("*-s*.json")}
    seen, again = judged_images(monkeypatch), Told()
    run(options(ground_truth=True), again)
    assert files(SWEEP) == files(made / "sweep")
    left = [name for name in ALL if name not in there]
    assert len(left) == 5 - len(there) > 0
    images = sum(NUM_VAL if "ground" in name else NUM for name in left)
    assert sum(seen) - 1 == images  # a blank one asks what the judge can give
    if evaluations == 300:
        assert again.total < 3 * (4 * NUM + 2 * NUM_VAL)  # a finished block is not made again


def test_a_point_that_was_begun_with_another_batch_is_not_gone_on_with(workspace):
    run(options(s=(0,)), Told())
    asked = as_typed(UpsampleOptions, s=5, compute=Compute(device="cpu", batch_size=16))
    upsample.run(replace(asked, out=SWEEP / "non-truncated-s0005.h5"), Told())
    with pytest.raises(WouldOverwriteError, match=r"s0005\.h5 is of.*was 16.*-o sweep-2$"):
        run(options(), Told())


def test_other_s_join_those_that_are_there(swept, monkeypatch):
    seen = judged_images(monkeypatch)
    result = run(options(s=(6,), augments=("non-truncated",)), Told())
    assert sum(seen) == NUM + 1
    assert [line[:2] for line in result.table.lines()][2:4] == [
        ["non-truncated", "5"], ["non-truncated", "6"],
    ]  # fmt: skip
    assert "\nnon-truncated,6," in (SWEEP / "sweep.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": Sampling(seed=1)}, "--seed was 0, is 1"),
        ({"sampling": Sampling(steps=5)}, "--steps was 3, is 5"),
        ({"num": 30}, "--num was 66, is 30"),
        ({"judge": replace(JUDGE, features="other")}, "judge_weights was"),
        ({"judge": replace(JUDGE, ref=Path("other.h5"))}, "--ref was"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(swept, monkeypatch, changes, says):
    write_judge(swept / "runs/other", seed=1)
    write_store(swept / "other.h5", "prepared", {"train": arrays_of(30, [4, 8], seed=2)})
    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    before = files(SWEEP)
    with pytest.raises(WouldOverwriteError, match=rf"sweep is of another sweep: {says}"):
        run(options(**changes), Told())
    with pytest.raises(WouldOverwriteError, match=says):
        plan(options(**changes), Told())
    assert files(SWEEP) == before


def test_a_stage_that_was_trained_on_is_another_sweep(swept):
    save_ema(swept / "runs/sr", net_of(SR, seed=5).state_dict(), step=2)
    with pytest.raises(WouldOverwriteError, match="weights was"):
        run(options(), Told())


def test_what_is_no_sweep_is_left_alone(workspace):
    (workspace / "file").write_text("mine")
    SWEEP.mkdir()
    (SWEEP / "sweep.csv").write_text("mine")
    with pytest.raises(WouldOverwriteError, match="file is a file"):
        run(options(out="file"), Told())
    with pytest.raises(WouldOverwriteError, match=r"sweep\.csv exists and belongs to no sweep"):
        run(options(), Told())
    with pytest.raises(WouldOverwriteError, match="runs/sr is a stage, a sweep needs a directory"):
        run(options(out="runs/sr"), Told())
    assert (SWEEP / "sweep.csv").read_text() == "mine"


def test_a_point_of_another_sweep_is_refused(swept):
    point = told("none-s0000") | {"sweep": "0" * 64}
    (SWEEP / "none-s0000.json").write_text(json.dumps(point))
    with pytest.raises(WouldOverwriteError, match=r"none-s0000\.json is of another .*-o sweep-2$"):
        run(options(), Told())


def test_numbers_of_another_point_are_refused(swept):
    """A file that was copied over another would be counted twice, and that point be missing."""
    (SWEEP / "none-s0000.json").write_text(json.dumps(told("truncated-s0005")))
    with pytest.raises(
        WouldOverwriteError, match=r"none-s0000\.json has the numbers of truncated-s0005\.h5"
    ):
        run(options(), Told())
    (SWEEP / "none-s0000.json").unlink()
    run(options(), Told())


def test_a_store_of_other_images_is_refused_beside_numbers(swept):
    """The page would show images that were never judged."""
    own, other = SWEEP / "none-s0000.h5", SWEEP / "truncated-s0005.h5"
    kept = own.read_bytes()
    shutil.copyfile(other, own)
    with pytest.raises(WouldOverwriteError, match=r"none-s0000\.h5 holds other images") as error:
        run(options(), Told())
    assert error.value.next == f"mv {own} none-s0000-2.h5, then the same command"
    assert own.read_bytes() == other.read_bytes()
    own.rename("none-s0000-2.h5")
    assert run(options(), Told()).chosen  # numbers do without their images
    own.write_bytes(kept)
    assert run(options(), Told()).chosen


@pytest.mark.parametrize("name", ["sweep.json", "none-s0000.json"])
def test_a_damaged_file_is_made_again_as_its_error_advises(swept, monkeypatch, name):
    """From the stores of the points, and the numbers of the others."""
    before, rows, drawn = files(SWEEP), told()["rows"], []
    (SWEEP / name).write_bytes(before[name][:100])
    with pytest.raises(BadInputError, match=re.escape(name)) as error:
        run(options(), Told())
    assert files(SWEEP) == before | {name: before[name][:100]}
    type_advice(error.value)
    monkeypatch.setattr("cdm_cli.jobs.sampling.fill.generate", lambda *_, **__: drawn.append(1))
    run(options(), Told())
    assert drawn == []
    after = files(SWEEP)
    changed = {one for one in before if after[one] != before[one]}
    assert changed <= {"report.html", "sweep.json"}, "which tell the command"
    assert told()["rows"] == rows


def test_truncated_only_where_it_is_kept_and_means_the_same(workspace):
    def points(**changes):
        report = Told()
        return [(p["augment"], p["s"]) for p in plan(options(**changes), report)["points"]], report

    found, report = points(s=(0, 5, 6))
    assert found == [("none", 0), ("truncated", 5), ("non-truncated", 5), ("non-truncated", 6)]
    said = "kept no state at s = 6, so truncated is left out there (cdm sample --keep-s keeps them)"
    assert said in report.lines[-1]
    _, report = points(lowres=Path("data.h5"), s=(0, 5))  # real images never had a state
    assert "kept no state" not in "".join(report.lines)
    report = Told()
    plan(as_typed(SweepOptions, axes=("s=5,6",), judge=JUDGE), report)
    assert report.lines[-1].startswith("sweep: lowres.h5 kept no state")
    found, report = points(augments=("truncated",))
    assert found == [("none", 0), ("truncated", 5)]
    assert "left out" not in "".join(report.lines)
    low = ConditioningConfig(resolution=4, z_schedule=ScheduleConfig(kind="cosine", T=30))
    write_stage(workspace / "runs/otherz", sr_config(4, 8, conditioning=low))
    found, report = points(model="otherz")
    assert found == [("none", 0), ("non-truncated", 5)]
    assert "left out" in report.lines[0]
    assert "another noise schedule" in report.lines[0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"s": (0, 21)}, UsageError, "--s 21: .* trained on s = 0..20 .*Next: --s 0,20$"),
        ({"s": (5, 6), "augments": ("truncated",)}, MismatchError, "no z_s for s = 6, only for 5"),
        ({"model": "otherz", "augments": ("truncated",)}, MismatchError, "another noise schedule"),
        ({"model": "blur", "s": ()}, UsageError, "there is nothing to search"),
        ({"model": "blur"}, UsageError, "s = 0 only"),
        ({"model": "base"}, MismatchError, "it is a base stage"),
        ({"model": "sr", "sampling": Sampling(weights="best")}, MissingError, "best"),
        ({"lowres": "none.h5"}, MissingError, r"none\.h5"),
        ({"num": 67}, UsageError, "has 66 images"),
        ({"ref": "none.h5"}, MissingError, r"--ref none\.h5 does not exist"),
        ({"ref": "low.h5"}, MismatchError, "the stage makes 8×8, the store has 4"),
        ({"ref": "gray.h5"}, MismatchError, "the stage has 3 channels, the store 1"),
        ({"ref": "two.h5"}, MismatchError, "the stage has 3 classes, the store 2"),
        ({"ref": "train.h5", "ground_truth": True}, UsageError, "has no validation images"),
        (
            {"ref": "few.h5", "ground_truth": True},
            UsageError,
            "few.h5 has 6 validation images, too",
        ),
        ({"ref": "high.h5", "ground_truth": True}, MismatchError, "the store has 8"),
        ({"features": "sr"}, MismatchError, "a judge must be a classifier"),
        ({"features": "nobody"}, MissingError, "nobody"),
    ],
)
def test_misfits_are_caught_from_headers(workspace, monkeypatch, changes, error, says):
    low = ConditioningConfig(resolution=4, z_schedule=ScheduleConfig(kind="cosine", T=30))
    write_stage(workspace / "runs/otherz", sr_config(4, 8, conditioning=low))
    write_stage(workspace / "runs/blur", continuous_config(4, 8))
    both, high = arrays_of(6, [4, 8]), arrays_of(24, [8])
    gray = both | {f"images/{side}": both[f"images/{side}"][..., :1] for side in (4, 8)}
    write_store("low.h5", "prepared", {"train": arrays_of(6, [4])})
    write_store("gray.h5", "prepared", {"train": gray})
    write_store("train.h5", "prepared", {"train": both})
    write_store("high.h5", "prepared", {"train": high, "val": high})
    write_store("few.h5", "prepared", {"train": both, "val": both})
    two = both | {"labels": both["labels"] % 2}
    write_store("two.h5", "prepared", {"train": two}, classes=("disk", "ring"))
    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    monkeypatch.setattr("cdm_cli.jobs.sweep.shared.open_panel", loaded)
    judge = {key: changes[key] for key in ("ref", "features") if key in changes}
    rest = {key: value for key, value in changes.items() if key not in judge}
    asked = {"model": "sr", "judge": replace(JUDGE, **paths(judge))} | rest
    with pytest.raises(error, match=says):
        run(options(**asked), Told())
    assert not SWEEP.exists()


def paths(judge):
    return judge | ({"ref": Path(judge["ref"])} if "ref" in judge else {})


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"z_schedule": ScheduleConfig(T=4000)}, [0, 251, 501, 751, 1001, 1251, 1501]),
        ({"z_schedule": ScheduleConfig(T=1000)}, [0, 63, 126, 189, 251, 313, 376]),
        ({"z_schedule": ScheduleConfig(T=4000), "s_max": 600}, [0, 101, 201, 301, 400, 500, 600]),
        ({"z_schedule": ScheduleConfig(T=4000), "s_min": 700}, [751, 1001, 1251, 1501]),
        ({"z_schedule": ScheduleConfig(T=4000), "s_min": 1001, "s_max": 1001}, [1001]),
        ({"z_schedule": ScheduleConfig(T=4000), "s_min": 1251, "s_zero": 0.1}, [0, 1251, 1501]),
        ({"z_schedule": COSINE}, [0, 2, 4, 5, 6, 8, 9]),
    ],
)
def test_the_default_s_are_the_papers_at_the_scale_of_T(changes, times):
    config = sr_config(4, 8, conditioning=ConditioningConfig(resolution=4, **changes))
    assert choose_default_times(Header(Path("sr"), config, ())) == times


def test_dry_run_tells_points_and_cost_and_writes_nothing(swept):
    cost = plan(options(s=(0, 5, 6), ground_truth=True), Told())
    todo = NUM + NUM_VAL  # s = 6, non-truncated and ground truth; the rest is there
    assert cost["samples"] == cost["images_judged"] == todo
    assert cost["network_evaluations"] == 3 * todo
    assert cost["flops"] == cost["flops_per_image"] * 3 * todo
    assert [point["judged"] for point in cost["points"]] == [
        True, True, True, False, True, True, False,
    ]  # fmt: skip
    assert not (SWEEP / "non-truncated-s0006.h5").exists()


def test_two_processes_make_the_same_sweep(made, workspace, in_pair):
    two = replace(JUDGE, compute=Compute(device="cpu", batch_size=32, gpus=2))
    run(options(s=(0,), judge=two), Told())
    assert contents(SWEEP / "none-s0000.h5") == contents(made / "sweep/none-s0000.h5")
    alone = json.loads((made / "sweep/none-s0000.json").read_text())["rows"]
    # FID is 6e-7 here: what float32 features of other batches round differently is 1e-6 of it.
    expected = pytest.approx(values(alone), rel=1e-9, abs=1e-11)
    assert values(told("none-s0000")["rows"]) == expected
