"""Mirrors cdm_cli/jobs/checking/inspect.py: what is told of each kind of file.

Here too: screen.py.
"""

import json
import os

import numpy as np
import pytest
import torch

from cdm_cli.cascade.snapshot import Snapshot, save_checkpoint
from cdm_cli.commands._render import make_plain, write_lines
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.store import PartSpec, StoreSpec, create
from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.jobs.checking.inspect import run
from cdm_cli.nets.counting import count_parameters
from cdm_cli.options.workspace import InspectOptions
from tests.asking import as_typed
from tests.tiny import (
    CLASSES,
    arrays_of,
    base_config,
    net_of,
    sr_config,
    write_stage,
    write_store,
)


def inspected(path):
    """As `cdm inspect --json` prints it."""
    return json.loads(json.dumps(make_plain(run(as_typed(InspectOptions, path=path), None))))


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
    assert told["parameters"] == count_parameters(net_of(config))
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


def short(path):
    return write_lines(run(as_typed(InspectOptions, path=path), None), whole=False)


def test_each_kind_fits_one_screen_and_says_first_what_it_is(tmp_path):
    stage = tmp_path / "runs" / "sr"
    write_stage(stage, sr_config(8, 16))
    config = sr_config(8, 16)
    model = config.model.model_copy(update={"num_classes": 0})
    write_stage(tmp_path / "runs" / "any", config.model_copy(update={"model": model}))
    arrays = arrays_of(4, (8,))
    made = {
        "command": "cdm sample",
        "parents": [{"role": "stage", "name": "b", "digest": "f" * 64}],
        "note": "for the talk",
    }
    write_store(tmp_path / "low.h5", "samples", {"": arrays}, provenance=made)
    tensors = {"w": torch.arange(3.0)}
    saved = save_checkpoint(
        tmp_path, Snapshot(step=12, model=tensors, ema=tensors, optimizer={}, state={}), keep=1
    )
    said = {
        stage: "a super-resolution stage at 16×16×3 from 8×8, 3 classes",
        tmp_path / "runs" / "any": "a super-resolution stage at 16×16×3 from 8×8, unconditional",
        tmp_path / "low.h5": "a store of samples, finished, ",
        saved: "the checkpoint of step 12, 4 files, ",
        saved / "model.safetensors": "weights, ",
    }
    for path, first in said.items():
        lines = short(path)
        assert lines[0].startswith(f"{path}: {first}")
        assert len(lines) <= 23
        assert not any(line.endswith(("None", "[]")) for line in lines)
    assert "from     stage b (ffffffffffff)" in short(tmp_path / "low.h5")
    assert "note     for the talk" in short(tmp_path / "low.h5")


def test_a_provenance_of_anything_is_shown_or_left_out(tmp_path):
    for number, made in enumerate(({"parents": 5}, {"identity": [1]}, {"parents": [3, {}]}, {})):
        path = write_store(
            tmp_path / f"{number}.h5", "samples", {"": arrays_of(2, (8,))}, provenance=made
        )
        assert short(path)[0].endswith(" B") or "kB" in short(path)[0]


def test_what_is_not_ours_is_named(tmp_path):
    with pytest.raises(MissingError, match="nothing"):
        run(as_typed(InspectOptions, path=tmp_path / "nothing"), None)
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    for name in ("notes.txt", "pipe", "."):
        with pytest.raises(BadInputError, match="neither a store"):
            run(as_typed(InspectOptions, path=tmp_path / name), None)
