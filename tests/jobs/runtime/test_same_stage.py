"""A digest is of a stage's configuration, whatever its sampling defaults are or were."""

import hashlib
from typing import Annotated

import pytest

from cdm_cli.config import StageConfig
from cdm_cli.jobs.runtime.same_stage import compute_config_digest, is_digest_of, update_stage_digest
from cdm_cli.settings import SETTABLE, Later

VALUES = {
    "kind": "base", "model": {"resolution": 8, "base_channels": 8, "channel_mult": [1]},
    "schedule": {"T": 20}, "sampling": {"sampler": "ddim", "steps": 7},
}  # fmt: skip
CONFIG = StageConfig.model_validate(VALUES)
OLD = hashlib.sha256(CONFIG.model_dump_json().encode()).hexdigest()  # as e2ad55b recorded it
OTHERS = [
    {"schedule": {"T": 21}},
    {"model": {**VALUES["model"], "channels": 1}},
    {"model": {**VALUES["model"], "base_channels": 16}},
    {"time_input": "log_snr"},
]
DEFAULTS = [{}, {"steps": 20}, {"steps": 1, "variance": "small"}, {"sampler": "dpm-solver++"}]


class Grown(StageConfig):
    gain: Annotated[float, Later()] = 1.0


def config(kind=StageConfig, /, **changes):
    return kind.model_validate({**VALUES, **changes})


def test_the_full_dump_of_e2ad55b_has_the_bytes_that_it_had():
    assert OLD == "07380c571686119ca815c090dfd85de883547ccfd1116fa751f28bb93d236055"


@pytest.mark.parametrize("digest", [OLD, compute_config_digest(CONFIG)])
def test_digests_of_both_forms_are_recognised_under_all_sampling_defaults(digest):
    for sampling in DEFAULTS:
        assert is_digest_of(config(sampling=sampling), digest)
    assert not any(is_digest_of(config(**other), digest) for other in OTHERS)


@pytest.mark.parametrize("digest", [OLD, compute_config_digest(CONFIG)])
def test_a_later_field_changes_the_stage_only_where_it_is_set(digest):
    assert is_digest_of(config(Grown), digest)
    assert config(Grown).model_dump_json() == CONFIG.model_dump_json()
    assert not is_digest_of(config(Grown, gain=2.0), digest)
    assert '"gain":2.0' in config(Grown, gain=2.0).model_dump_json()


def test_what_set_may_name_is_there_at_its_default():
    values = config(Grown).model_dump(context=SETTABLE)
    assert values["gain"] == 1.0
    assert "respacing" not in values["sampling"]


def test_an_identity_gets_the_digest_of_today_where_the_stage_is_the_same():
    there = {"num": 3, "stage": OLD}
    assert update_stage_digest(there, CONFIG) == {"num": 3, "stage": compute_config_digest(CONFIG)}
    for strange in ({"num": 3}, {"stage": None}, {"stage": "0" * 64}):
        assert update_stage_digest(strange, CONFIG) == strange
