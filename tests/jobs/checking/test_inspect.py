"""Mirrors cdm_cli/jobs/checking/inspect.py: what is told of each kind of file."""

import json
import os

import numpy as np
import pytest
import torch

from cdm_cli.cascade.snapshot import Snapshot, save_checkpoint
from cdm_cli.commands._render import plain
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.store import PartSpec, StoreSpec, create
from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.jobs.checking.inspect import run
from cdm_cli.nets.counting import num_parameters
from cdm_cli.options.files import InspectOptions
from tests.asking import as_typed
from tests.tiny import CLASSES, base_config, net_of, sr_config, write_stage


def inspected(path):
    """As `cdm inspect --json` prints it."""
    return json.loads(json.dumps(plain(run(as_typed(InspectOptions, path=path), None))))


def test_a_store(tmp_path):
    path = tmp_path / "lowres.h5"
    spec = PartSpec(num=6, resolutions={8: 3}, z={251: (8, 8, 3)})
    made = {"command": "cdm sample", "seed": 7}
    with create(
        path, StoreSpec("samples", {"": spec}, ["cat", "dog"], made, block_size=4)
    ) as store:
        store.parts[""].write_block(
            0,
            {
                "images/8": np.zeros((4, 8, 8, 3), np.uint8),
                "labels": np.zeros(4, np.int64),
                "ids": np.arange(4),
                "z/251": np.zeros((4, 8, 8, 3), np.float16),
            },
        )
        digest = store.digest
    told = inspected(path)
    assert told["kind"] == "samples"
    assert told["bytes"] == path.stat().st_size
    assert told["finished"] is False
    assert told["digest"] == digest
    assert told["classes"] == ["cat", "dog"]
    assert told["provenance"]["seed"] == 7
    assert told["parts"] == [
        {"part": "all", "num": 6, "images": ["8x8x3"], "z_s": [251], "blocks_done": 1, "blocks": 2}
    ]


def test_a_stage_by_path_and_by_name(tmp_path, monkeypatch):
    config = sr_config(8, 16)
    write_stage(tmp_path / "runs" / "sr", config)
    told = inspected(tmp_path / "runs" / "sr")
    assert (told["kind"], told["resolution"], told["low_resolution"]) == ("sr", 16, 8)
    assert told["num_classes"] == len(CLASSES)
    assert told["parameters"] == num_parameters(net_of(config))
    assert told["flops_per_image"] > told["parameters"]
    assert told["weights"]["ema.safetensors"]["step"] == "1"
    assert told["data"]["classes"] == list(CLASSES)
    assert told["plan"]["stage"]["conditioning"]["resolution"] == 8
    monkeypatch.chdir(tmp_path)
    assert inspected("sr")["parameters"] == told["parameters"]


def test_a_base_stage_and_a_classifier(tmp_path):
    write_stage(tmp_path / "base", base_config())
    told = inspected(tmp_path / "base")
    assert (told["kind"], told["T"]) == ("base", 20)
    assert "low_resolution" not in told
    shape = {"resolution": 8, "channels": 1, "num_classes": 3}
    assert ClassifierConfig(**shape).kind == "classifier"


def test_a_checkpoint_and_its_weights(tmp_path):
    tensors = {"w": torch.arange(3.0)}
    snapshot = Snapshot(step=12, model=tensors, ema=tensors, optimizer={}, state={"seed": 0})
    path = save_checkpoint(tmp_path, snapshot, keep=1)
    told = inspected(path)
    assert (told["kind"], told["step"]) == ("checkpoint", 12)
    files = {row["file"]: row["bytes"] for row in told["files"]}
    assert files["model.safetensors"] == (path / "model.safetensors").stat().st_size
    weights = inspected(path / "model.safetensors")
    assert (weights["kind"], weights["step"]) == ("weights", "12")


def test_what_is_not_ours_is_named(tmp_path):
    with pytest.raises(MissingError, match="nothing"):
        run(as_typed(InspectOptions, path=tmp_path / "nothing"), None)
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    for name in ("notes.txt", "pipe", "."):
        with pytest.raises(BadInputError, match="neither a store"):
            run(as_typed(InspectOptions, path=tmp_path / name), None)
