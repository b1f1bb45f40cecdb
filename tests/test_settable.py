"""Mirrors cdm_cli/settable.py: what may be set is listed, and what is listed may be set."""

import json

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.overrides import with_overrides
from cdm_cli.presets import PRESETS
from cdm_cli.settable import list_settings_of


@pytest.mark.parametrize("name", ["tiny-base8", "tiny-sr8-16", "tiny-classifier"])
def test_every_setting_of_a_preset_can_be_set_to_what_is_listed(name):
    plan = PRESETS[name]
    rows = list_settings_of(plan)
    for row in rows:
        value = "null" if row["default"] == "none" else row["default"]
        if row["type"].startswith("list: "):
            value = "null" if "or none" in row["type"] else f"[{row['default']}]"
            value = value.replace("[none]", "[]")
        assert with_overrides(plan, (f"{row['setting']}={value}",)) == plan, row
    kinds = {row["setting"].partition(".")[0] for row in rows}
    assert ("conditioning" in kinds) == (name == "tiny-sr8-16")


def test_every_setting_says_what_it_means():
    rows = list_settings_of(None)
    assert all(row["meaning"].endswith(".") for row in rows)
    assert len({row["setting"] for row in rows}) == len(rows)


def test_types_defaults_and_ranges_are_those_of_the_fields():
    rows = {row["setting"]: row for row in list_settings_of(None)}
    assert rows["model.dropout"]["range"] == "0 or more, less than 1"
    assert rows["model.head_channels"]["type"] == "whole number or none"
    assert rows["model.channel_mult"]["type"] == "list: number"
    assert rows["schedule.kind"]["type"] == "cosine, linear or list"
    assert rows["conditioning.z_schedule.T"]["default"] == "4000"
    assert "sampling.respacing" not in rows
    assert rows["base_channels"]["default"] == "64"


def test_without_a_preset_a_setting_says_which_models_have_it():
    of = {row["setting"]: row["of"] for row in list_settings_of(None)}
    assert next(iter(of)) == "kind"
    assert (of["kind"], of["model.dropout"], of["base_channels"]) == (
        "any", "diffusion", "classifier",
    )  # fmt: skip
    assert of["training.lr"] == "any"
    assert "of" not in list_settings_of(PRESETS["tiny-base8"])[0]


def listed(*words):
    done = CliRunner().invoke(app, ["train", "--list-settings", *words])
    return done.exit_code, done.stdout


def test_the_command_lists_them_with_the_values_of_a_preset():
    code, shown = listed("--preset", "tiny-base8", "--set", "model.dropout=0.25", "--json")
    assert code == 0
    rows = {row["setting"]: row for row in json.loads(shown)["settings"]}
    assert rows["model.dropout"]["default"] == "0.25"
    assert rows["model.resolution"]["default"] == "8"
    assert listed("--preset", "tiny-bse8")[0] == 2


def test_a_mistyped_setting_gets_its_dotted_neighbour_and_the_list():
    words = ["train", "x", "--preset", "tiny-base8", "--set", "dropuot=0.1"]
    said = CliRunner().invoke(app, words).stderr
    assert "did you mean model.dropout?" in said
    assert "cdm train --list-settings" in said
