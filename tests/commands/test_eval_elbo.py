"""Mirrors cdm_cli/commands/eval_elbo.py: two words are a command, its stages the rest."""

import json

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from tests.tiny import arrays_of, base_config, sr_config, write_stage, write_store

CPU = ("--device", "cpu", "--num", "6", "--terms", "3")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", base_config())
    write_stage(tmp_path / "runs/sr", sr_config())
    parts = {"train": arrays_of(8, (8, 16)), "val": arrays_of(9, (8, 16), seed=1)}
    write_store("data.h5", "prepared", parts)


def invoke(*words):
    return CliRunner().invoke(app, list(words))


def test_the_base_stage_by_default():
    shown = invoke("eval", "elbo", *CPU)
    assert shown.exit_code == 0, shown.stderr
    header, row = shown.stdout.splitlines()[:2]
    assert header.split() == [
        "stage", "resolution", "above", "prior", "divergences", "decoder", "bits_per_dim", "error",
    ]  # fmt: skip
    assert row.split()[:2] == ["base", "8"]
    assert "by default STAGE base, --ref data.h5" in shown.stderr
    assert "\nbits_per_dim: " in shown.stdout
    whole = invoke("-v", "eval", "elbo", *CPU)
    for told in ("data digest", "terms", "variance", "seed"):
        assert f"\n{told} " in whole.stdout
        assert f"\n{told} " not in shown.stdout


def test_of_several_processes_one_says_what_is_taken_by_default(monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.elbo.elbo.run", lambda options, report: {})
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        shown = invoke("eval", "elbo", *CPU)
        assert shown.exit_code == 0, shown.stderr
        assert shown.stderr.count("by default") == said


def test_a_cascade_with_one_s_as_json():
    shown = invoke("eval", "elbo", "base", "sr", "--s", "7", "--split", "train", *CPU, "--json")
    assert shown.exit_code == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert [row["stage"] for row in found["rows"]] == ["base", "sr", "cascade"]
    assert [row["s"] for row in found["rows"]] == [None, 7, None]
    assert (found["split"], found["num"], found["terms"]) == ("train", 6, [3, 3])
    assert all(row["error"] > 0 for row in found["rows"])


def test_steps_and_a_plan():
    shown = invoke("eval", "elbo", "base", "--steps", "5", "--dry-run", "--json", *CPU)
    assert json.loads(shown.stdout)["stages"][0]["evaluations"] == 6 * 3
    shown = invoke("eval", "elbo", "base", "--steps", "5", "--json", *CPU)
    assert json.loads(shown.stdout)["steps"] == [5]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("eval", "elbo", "nowhere"), 66, "nowhere"),
        (("eval", "elbo", "sr"), 2, "--s is missing"),
        (("eval", "elbo", "--terms", "1"), 2, "--terms 1"),
        (("eval", "elbo", "--s", "x"), 2, "--s x"),
        (("eval", "elbo", "--sampler", "ddim"), 2, "No such option: --sampler"),
        (("eval", "--json", "elbo", "base"), 2, "cdm eval elbo"),
    ],
)
def test_errors_are_one_line(words, code, told):
    shown = invoke(*words)
    assert shown.exit_code == code
    assert told in shown.stderr
    assert shown.stderr.rstrip().splitlines()[-1].startswith("cdm: error:")
