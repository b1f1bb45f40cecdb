"""Mirrors cdm_cli/jobs/checking/{verify,verify_store,verify_stage}.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade.saved import remove_checkpoint
from cdm_cli.cascade.snapshot import Snapshot, save_best, save_checkpoint
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MissingError, UsageError
from cdm_cli.jobs.checking import verify_stage
from cdm_cli.jobs.checking.verify import run
from cdm_cli.options.files import VerifyOptions
from tests.asking import as_typed
from tests.data.stores import forget_block
from tests.jobs.checking.verifying import copied, flip, make, place_of, verified
from tests.tiny import Told, arrays_of, base_config, net_of, write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    return copied(made, tmp_path, monkeypatch)


def test_a_good_store_and_its_parents(workspace):
    found = verified()
    assert (found.state, found.blocks, found.damaged, found.failure()) == ("good", 2, [], None)
    assert [(row["role"], row["found"]) for row in found.parents] == [
        ("stage", "runs/sr (ema)"),
        ("lowres", "lowres.h5"),
    ]
    (workspace / "lowres.h5").rename("renamed.h5")
    shutil.rmtree("runs/sr")
    assert [row["found"] for row in verified().parents] == ["", "renamed.h5"]
    with open_store("renamed.h5") as store:
        digest = store.parts[""].read_digest(0)
    flip("renamed.h5", Path("renamed.h5").read_bytes().index(digest))
    assert verified().parents[1]["found"] == ""


@pytest.mark.parametrize("row", [0, 63, 64, 69])
@pytest.mark.parametrize("name", ["images/8", "z/5", "z/11", "ids", "labels"])
def test_a_flipped_byte_anywhere_is_found_and_its_samples_named(workspace, row, name):
    with open_store("lowres.h5") as store:
        size = store.parts[""].map_member(name)[0].nbytes
    rng = np.random.default_rng([row, size])
    flip("lowres.h5", place_of("lowres.h5", name, row) + int(rng.integers(size)), 1 << row % 8)
    found = verified("lowres.h5")
    samples = "0..63" if row < 64 else "64..69"
    assert found.state == "damaged"
    assert [(bad["block"], bad["samples"]) for bad in found.damaged] == [(row // 64, samples)]
    error = found.failure()
    assert isinstance(error, BadInputError)
    assert f"1 of 2 blocks are damaged: samples {samples}" in error.what


def test_a_block_that_means_nothing_is_damaged_whatever_its_digest(workspace):
    with open_store("lowres.h5", writable=True) as store:
        part = store.parts[""]
        block = part.read_block(1)
        block["labels"][0] = 3
        part.put_block(1, block)
    assert "labels outside 0..2" in verified("lowres.h5").damaged[0]["what"]


def test_an_unfinished_store_says_what_is_missing(workspace):
    with open_store("lowres.h5", writable=True) as store:
        forget_block(store.parts[""], 1)
    found = verified("lowres.h5", replay=3)
    assert (found.state, found.replay) == ("unfinished", None)
    error = found.failure()
    assert isinstance(error, MissingError)
    assert "1 of 2 blocks are still to be made: samples 64..69" in error.what
    assert error.next.startswith("cdm sample base")
    flip("lowres.h5", place_of("lowres.h5", "images/8"))
    assert isinstance(verified("lowres.h5").failure(), BadInputError)


def test_splits_are_named(workspace):
    write_store(
        "data.h5", "prepared", {"train": arrays_of(70, [8]), "val": arrays_of(10, [8], seed=1)}
    )
    with open_store("data.h5") as store:
        place = store.parts["val"].images(8).offset
    flip("data.h5", place)
    found = verified("data.h5")
    assert found.damaged[0] | {"what": ""} == {
        "part": "val", "block": 0, "samples": "0..9", "what": "",
    }  # fmt: skip
    assert "samples 0..9 of val" in found.failure().what


def test_the_command_prints_the_table_and_ends_with_65_or_66(workspace):
    flip("lowres.h5", place_of("lowres.h5", "images/8"))
    done = CliRunner().invoke(app, ["verify", "lowres.h5", "--json"])
    assert done.exit_code == 65
    told = json.loads(done.stdout)
    assert told["damaged"][0]["samples"] == "0..63"
    assert "damaged: samples 0..63" in done.stderr
    done = CliRunner().invoke(app, ["verify", "samples.h5"])
    assert done.exit_code == 0
    assert done.stdout.startswith("samples.h5: good, 2 blocks, ")
    assert done.stdout.count("\n") == 1
    assert "runs/sr (ema)" in CliRunner().invoke(app, ["-v", "verify", "samples.h5"]).stdout
    done = CliRunner().invoke(app, ["verify", "base"])
    assert done.stdout == "runs/base: good, 2 files, each as it was written\n"
    with open_store("samples.h5", writable=True) as store:
        forget_block(store.parts[""], 0)
    done = CliRunner().invoke(app, ["verify", "samples.h5"])
    assert done.exit_code == 66
    assert "0..63" in done.stdout


# Stages


@pytest.fixture
def stage(workspace):
    directory = workspace / "runs/base"
    tensors = net_of(base_config()).state_dict()
    moments = {f"exp_avg.{name}": torch.zeros_like(t) for name, t in tensors.items()}
    for step in (1, 2):
        save_checkpoint(directory, Snapshot(step, tensors, tensors, moments, {"k": 1}), keep=2)
    save_best(directory, tensors, 1, "fid 3.1")
    return directory


def test_a_good_stage_by_name(stage):
    found = verified("base")
    assert (found.state, found.kind, found.checkpoints) == ("good", "base", 2)
    assert found.failure() is None
    assert len(found.files) == 3 + 2 * 5


@pytest.mark.parametrize(
    "name",
    [
        "stage.json",
        "ema.safetensors",
        "best.safetensors",
        "checkpoints/step-00000001/model.safetensors",
        "checkpoints/step-00000002/ema.safetensors",
        "checkpoints/step-00000002/optimizer.safetensors",
        "checkpoints/step-00000002/state.json",
        "checkpoints/step-00000002/manifest.json",
    ],
)
def test_a_damaged_file_of_a_stage_is_named_and_no_other(stage, name):
    data = bytearray((stage / name).read_bytes())
    data[len(data) // 2 if "tensors" in name else 0] ^= 1
    (stage / name).write_bytes(data)
    found = verified(stage)
    assert [row["file"] for row in found.files if row["state"] != "good"] == [name]
    error = found.failure()
    assert isinstance(error, BadInputError)
    assert name in error.what


def test_what_a_kill_leaves_is_no_damage(stage):
    (stage / "checkpoints/step-00000001/manifest.json").unlink()
    found = verified(stage)
    assert (found.state, found.incomplete, found.checkpoints) == ("good", ["step-00000001"], 1)
    (stage / "ema.safetensors").unlink()
    found = verified(stage)
    assert found.state == "unfinished"
    assert isinstance(found.failure(), MissingError)


@pytest.mark.parametrize("done", [1, 3, 5, 6])
def test_a_checkpoint_that_training_removes_meanwhile_is_no_damage(stage, done):
    """Before its first file is read, and between two of them."""
    gone = stage / "checkpoints/step-00000001"
    told = Told(lambda now: remove_checkpoint(gone) if now == done else None)
    found = run(as_typed(VerifyOptions, path=stage, device="cpu"), told)
    assert (found.state, found.failure(), found.checkpoints) == ("good", None, 1)
    removed = {row["file"] for row in found.files if row["state"] == "removed meanwhile"}
    assert removed
    assert all(name.startswith("checkpoints/step-00000001/") for name in removed)


def test_a_checkpoint_that_vanishes_as_it_is_listed_is_no_damage(stage, monkeypatch):
    real = verify_stage.read_manifest

    def rotated(path):
        if path.name == "step-00000001":
            remove_checkpoint(path)
        return real(path)

    monkeypatch.setattr(verify_stage, "read_manifest", rotated)
    assert verified(stage).failure() is None


def test_a_single_checkpoint_that_is_removed_meanwhile_is_missing_not_damaged(stage):
    step = stage / "checkpoints/step-00000001"
    told = Told(lambda now: remove_checkpoint(step) if now == 2 else None)
    error = run(as_typed(VerifyOptions, path=step, device="cpu"), told).failure()
    assert isinstance(error, MissingError)
    assert "removed while it was read" in error.what


def test_one_checkpoint(stage):
    step = stage / "checkpoints/step-00000002"
    assert verified(step).state == "good"
    with (step / "ema.safetensors").open("ab") as file:
        file.write(b"x")
    assert "its manifest says" in verified(step).files[0]["state"]


def test_what_is_no_store_and_no_stage(workspace):
    with pytest.raises(MissingError, match="does not exist"):
        verified("nothing")
    with pytest.raises(MissingError, match="neither a stage directory nor a checkpoint"):
        verified("runs")
    with pytest.raises(UsageError, match="--replay 1"):
        verified("base", replay=1)
