"""Mirrors cdm_cli/jobs/sweep_s.py: every point is what upsample and eval give, made once."""

import json
import shutil

import pytest

from cdm_cli.jobs import evaluate, sweep_s, upsample
from cdm_cli.jobs.sweep_s import run
from cdm_cli.options import EvalOptions, SweepOptions, UpsampleOptions
from tests.jobs.sweeping import CPU, JUDGE, NUM, NUM_VAL, write_workspace
from tests.tiny import Told, contents, sr_config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_workspace(home, sr_config())
    return home


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home


def options(**changes):
    return SweepOptions(**({"s": (0, 5, 6), "judge": JUDGE} | changes))


def values(name):
    rows = json.loads((sweep_s.Path("sweep") / f"{name}.json").read_text())["rows"]
    return {(row["metric"], row["reference"]): row["value"] for row in rows}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("none-s0000", {"s": 0}),
        ("non-truncated-s0005", {"s": 5}),
        ("truncated-s0005", {"s": 5, "augment": "truncated"}),
        ("ground-truth-s0005", {"s": 5, "lowres": "data.h5", "num": NUM_VAL}),
    ],
)
def test_a_point_is_what_upsample_and_eval_give(workspace, name, changes):
    run(options(s=(0, 5), ground_truth=True), Told())
    upsample.run(UpsampleOptions(**({"compute": CPU, "num": NUM} | changes)), Told())
    assert contents("samples.h5") == contents(f"sweep/{name}.h5")
    table = evaluate.run(
        EvalOptions(metrics=("fid", "is", "accuracy"), judge=JUDGE, seed=0), Told()
    ).table
    told = {(row.metric, row.reference): row.value for row in table.rows}
    told.pop(("fid_gap", "val - train"))
    assert values(name) == told
