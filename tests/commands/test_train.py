"""Mirrors cdm_cli/commands/train.py: the list of presets needs neither data nor torch."""

import json

from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.presets import PRESETS


def test_list_presets_as_text_and_as_json():
    shown = CliRunner().invoke(app, ["train", "--list-presets"])
    assert shown.exit_code == 0
    for name in PRESETS:
        assert f"\n{name} " in shown.stdout
    rows = json.loads(CliRunner().invoke(app, ["train", "--list-presets", "--json"]).stdout)
    by_name = {row["preset"]: row for row in rows["presets"]}
    assert set(by_name) == set(PRESETS)
    assert by_name["imagenet-sr64-256"]["resolution"] == "64 -> 256"
    assert by_name["imagenet-sr64-256"]["kind"] == "sr"
    assert by_name["classifier"]["resolution"] == "of the data"


def test_a_name_is_needed_for_anything_else():
    result = CliRunner().invoke(app, ["train", "--preset", "tiny-base8"])
    assert result.exit_code == 2
    assert "NAME" in result.stderr
