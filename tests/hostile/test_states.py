"""A checkpoint whose digests are right, but whose small state was chosen by a stranger."""

import hashlib
import json
import math

import pytest

from cdm_cli.errors import BadInputError
from tests.tiny import Told
from tests.trained import train, write_data

GOOD = {"micro_batch": 8, "processes": 1, "ema_updates": 4, "sums": [0.0] * 4, "row": [0.0, 0.0]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("trained")
    write_data(home / "data.h5")
    train(home, "training.keep=9", steps=4)
    return home


def put(home, state):
    """Write the state of the newest checkpoint, and the manifest that belongs to it."""
    checkpoint = home / "runs/base/checkpoints/step-00000004"
    data = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["state.json"] = {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    return checkpoint


@pytest.mark.parametrize(
    "state",
    [
        {},
        GOOD | {"more": 1},
        GOOD | {"micro_batch": 0},
        GOOD | {"micro_batch": "x" * 100_000},
        GOOD | {"ema_updates": -1},
        GOOD | {"sums": [0.0] * 5},
        GOOD | {"sums": None},
        GOOD | {"row": [[0.0]]},
    ],
)
def test_a_state_that_means_nothing_is_passed_over_like_damage(trained, state):
    checkpoint = put(trained, state)
    told = Told()
    train(trained, "training.keep=9", steps=4, told=told)
    assert any(f"{checkpoint}/state.json" in line for line in told.lines)
    assert any("continuing from the checkpoint before it" in line for line in told.lines)


def test_where_nothing_else_is_left_it_is_refused(trained, tmp_path):
    write_data(tmp_path / "data.h5")
    train(tmp_path, "training.keep=1", steps=4)
    put(tmp_path, {})
    with pytest.raises(BadInputError, match=r"state\.json: micro_batch: is missing"):
        train(tmp_path, "training.keep=1", steps=5)


def test_sums_that_are_not_finite_can_be_kept(trained):
    put(trained, GOOD | {"sums": [math.inf, math.nan, 1.0, 0.0]})
    told = Told()
    train(trained, "training.keep=9", steps=4, told=told)
    assert not any("state.json" in line for line in told.lines)
