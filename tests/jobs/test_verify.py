"""Mirrors cdm_cli/jobs/{verify,verify_store,verify_stage,replay,replay_plan,parents}.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade.checkpoint import Snapshot, save_best, save_checkpoint
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.jobs import merge, replay, sample, upsample
from cdm_cli.jobs.schedule_file import ScheduleFile, Searched, config_digest
from cdm_cli.jobs.verify import run
from cdm_cli.options import (
    Compute,
    MergeOptions,
    SampleOptions,
    Sampling,
    UpsampleOptions,
    VerifyOptions,
)
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    continuous_config,
    net_of,
    sr_config,
    write_stage,
    write_store,
)

CPU = Compute(device="cpu", batch_size=24)  # blocks of 64 are batches of 24, 24 and 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_stage(home / "runs/base", base_config())
        write_stage(home / "runs/sr", sr_config())
        write_stage(home / "runs/other", base_config(), seed=9)
        sampled("lowres.h5")
        upsampled("samples.h5")
    return home


def sampled(out, **changes):
    values = {"num": 70, "keep_s": (5, 11), "out": out, "compute": CPU, "classes": "2,0"}
    sample.run(SampleOptions(**(values | changes)), Told())


def upsampled(out, **changes):
    values = {"lowres": "lowres.h5", "model": "sr", "s": 5, "out": out, "compute": CPU}
    upsample.run(UpsampleOptions(**(values | changes)), Told())


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def verified(path="samples.h5", **changes):
    return run(VerifyOptions(path=path, device="cpu", **changes), Told())


def flip(path, place, bit=1):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def place_of(path, name, row=0):
    """Where a row of a member lies in the file."""
    with open_store(path) as store:
        member = store.parts[""].mapped(name)
        return member.offset + row * member[0].nbytes


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
        digest = store.parts[""].block_digest(0)
    flip("renamed.h5", Path("renamed.h5").read_bytes().index(digest))
    assert verified().parents[1]["found"] == ""


@pytest.mark.parametrize("row", [0, 63, 64, 69])
@pytest.mark.parametrize("name", ["images/8", "z/5", "z/11", "ids", "labels"])
def test_a_flipped_byte_anywhere_is_found_and_its_samples_named(workspace, row, name):
    with open_store("lowres.h5") as store:
        size = store.parts[""].mapped(name)[0].nbytes
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
        store.parts[""].forget_block(1)
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
    assert "runs/sr (ema)" in done.stdout
    with open_store("samples.h5", writable=True) as store:
        store.parts[""].forget_block(0)
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


# Replay


def tampered(path, row, name="images/16", change=lambda pixels: pixels ^ 1):
    """Change one sample, with digests that fit."""
    with open_store(path, writable=True) as store:
        part = store.parts[""]
        b = row // part.block_size
        block = part.read_block(b)
        inside = row - b * part.block_size
        block[name][inside] = change(block[name][inside])
        part.put_block(b, block)


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("lowres.h5", lambda: None),
        ("samples.h5", lambda: None),
        ("a.h5", lambda: sampled("a.h5", sampling=Sampling(restart_from=9, seed=3))),
        ("a.h5", lambda: sampled("a.h5", sampling=Sampling(sampler="ddim", steps=0, clip=False))),
        ("a.h5", lambda: sampled("a.h5", num=190, part="2/3", sampling=Sampling(variance="small"))),
        ("a.h5", lambda: upsampled("a.h5", augment="truncated", num=66)),
        ("a.h5", lambda: upsampled("a.h5", lowres="data.h5", split="train", num=66)),
        ("a.h5", lambda: searched("a.h5")),
    ],
)
def test_a_replay_makes_the_same_bits(workspace, path, make):
    write_store("data.h5", "prepared", {"train": arrays_of(80, [8]), "val": arrays_of(9, [8])})
    make()
    found = verified(path, replay=5).replay
    assert found.compared >= 5
    assert (found.identical, found.largest, found.tolerance) == (found.compared, 0, 0)
    assert found.failure(path) is None


def searched(out):
    """Upsample along a schedule that tune-schedule could have found."""
    config = continuous_config()
    write_stage(Path("runs/blur"), config)
    schedule = Searched(
        steps=3, variance="large", alpha_bar=(0.9, 0.5, 0.01), score=1, baseline=2, trials=1
    )
    file = ScheduleFile(
        cdm_version="0", stage="blur", stage_digest="", config_digest=config_digest(config),
        lowres="", lowres_digest="", metric="fid", convention={}, s=0, num=2, seed=0,
        schedules=(schedule,),
    )  # fmt: skip
    with open("schedule.json", "w") as opened:
        opened.write(file.model_dump_json())
    upsampled(out, model="blur", s=None, sampling=Sampling(schedule="schedule.json"))


def test_whole_compute_batches_are_replayed_once(workspace):
    found = verified("lowres.h5", replay=70).replay
    assert (found.asked, found.compared) == (70, 70)
    told = Told()
    run(VerifyOptions(path="lowres.h5", device="cpu", replay=70), told)
    assert "70 samples in 4 batches, by runs/base (ema)" in told.lines[0]
    assert told.total == 2 + 70 * 6


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("samples.h5", "images/16"),
        ("lowres.h5", "images/8"),
        ("lowres.h5", "z/5"),
        ("lowres.h5", "ids"),
    ],
)
def test_a_store_that_was_changed_with_its_digests_is_caught(workspace, path, name):
    def change(values):
        values = np.array(values)
        flat = values.reshape(-1)
        flat[0] = flat[0] + 1 if flat[0] < 100 else flat[0] - 1
        return values

    assert verified(path, replay=70).state == "good"
    tampered(path, 67, name, change)
    assert verified(path).state == "good"
    found = verified(path, replay=70)
    assert found.state == "damaged"
    assert [row["row"] for row in found.replay.differing] == [67]
    assert isinstance(found.failure(), BadInputError)
    assert "samples that its provenance does not make" in found.failure().what


def test_another_device_or_build_may_round_otherwise_but_not_more(workspace, monkeypatch):
    monkeypatch.setattr(replay, "build", lambda device: "another torch")
    found = verified(replay=70).replay
    assert (found.tolerance, found.largest) == (8, 0)
    assert "which rounds otherwise" in found.why

    def darker(by):
        return lambda pixels: np.where(pixels > 127, pixels - by, pixels + by).astype(np.uint8)

    tampered("samples.h5", 30, change=darker(8))
    found = verified(replay=70)
    assert (found.state, found.replay.largest, found.replay.identical) == ("good", 8, 69)
    tampered("samples.h5", 31, change=darker(9))
    assert [row["row"] for row in verified(replay=70).replay.differing] == [31]


def test_samples_are_chosen_by_the_seed():
    assert replay.choice(100, 3, 0, "x") == replay.choice(100, 3, 0, "x")
    assert replay.choice(100, 3, 0, "x") != replay.choice(100, 3, 1, "x")
    assert replay.choice(5, 5, 0, "x") == list(range(5))
    with pytest.raises(UsageError, match="has 5 samples"):
        replay.choice(5, 6, 0, "x")


def test_each_part_of_a_merged_store_is_replayed_as_it_was_made(workspace):
    for index, batch in ((1, 24), (2, 20)):
        compute = Compute(device="cpu", batch_size=batch)
        sampled(f"p{index}.h5", num=120, part=f"{index}/2", compute=compute)
    merge.run(MergeOptions(parts=("p1.h5", "p2.h5"), out="m.h5"), Told())
    found = verified("m.h5", replay=120).replay
    assert (found.identical, found.tolerance) == (120, 0)
    told = Told()
    run(VerifyOptions(path="m.h5", device="cpu", replay=120), told)
    assert "120 samples in 6 batches" in told.lines[0]


def test_stage_and_lowres_may_be_elsewhere(workspace):
    (workspace / "away").mkdir()
    (workspace / "runs/sr").rename("away/sr")
    (workspace / "lowres.h5").rename("away/lowres.h5")
    with pytest.raises(MissingError, match=r"the stage of samples\.h5 \(sr, digest"):
        verified(replay=1)
    with pytest.raises(MissingError, match=r"lowres\.h5 \(digest"):
        verified(replay=1, model="away/sr")
    assert verified(replay=1, model="away/sr", lowres="away/lowres.h5").state == "good"
    with pytest.raises(MismatchError, match="none of its weights made"):
        verified(replay=1, model="base", lowres="away/lowres.h5")
    with pytest.raises(MismatchError, match="its digest is"):
        verified(replay=1, model="away/sr", lowres="samples.h5")


def test_the_weights_of_a_checkpoint_are_found(workspace):
    tensors = net_of(base_config(), seed=4).state_dict()
    moments = {f"exp_avg.{name}": t for name, t in tensors.items()}
    save_checkpoint(workspace / "runs/base", Snapshot(7, tensors, tensors, moments), keep=1)
    sampled("a.h5", sampling=Sampling(weights="step-00000007"))
    found = verified("a.h5", replay=2)
    assert found.parents[0]["found"] == "runs/base (step-00000007)"
    assert found.replay.identical == found.replay.compared


def test_what_cannot_be_replayed_says_why(workspace):
    write_store("plain.h5", "samples", {"": arrays_of(20, [8])})
    with pytest.raises(UsageError, match="was not made by cdm sample or cdm upsample"):
        verified("plain.h5", replay=1)
    with open_store("lowres.h5") as store:
        told = {**store.provenance}
        part = store.parts[""]
        arrays = {name: np.array(part.mapped(name)) for name in part.members}
    for changes, says in (
        ({"numerics": {}}, "does not tell batch_size"),
        ({"identity": {**told["identity"], "seed": -1}}, "does not tell seed"),
        ({"identity": {**told["identity"], "times": [3, 40]}}, "chain that its stage does not"),
        ({"identity": {**told["identity"], "steps": 3}}, "chain that its stage does not"),
        ({"merged": 3}, "does not tell merged"),
    ):
        path = write_store("b.h5", "samples", {"": arrays}, provenance=told | changes)
        with pytest.raises(BadInputError, match=says):
            verified(path, replay=1)
        (workspace / "b.h5").unlink()
