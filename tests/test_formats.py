"""docs/formats.md is true of what commands print."""

import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from tests.test_old_ones_continue import HOME
from tests.tree import ROOT

EXAMPLE = re.compile(r"^    cdm (.*? --json) {2,}(.*), …$", re.MULTILINE)
EXAMPLES = EXAMPLE.findall((ROOT / "docs/formats.md").read_text())
SMALL = "--num 20 --features features --device cpu"
MORE = {
    "eval": SMALL,
    "sweep-s": f"{SMALL} --batch-size 8 --s 5 --augment truncated",
}  # the fixture is small, and has no Inception network


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("line", "keys"), EXAMPLES, ids=[line for line, _ in EXAMPLES])
def test_every_key_is_one_that_the_command_prints(line, keys):
    if line.startswith("train"):  # of a preset that the data of the fixture do not fit
        Path("data.h5").unlink()
    words = shlex.split(f"{line} {MORE.get(line.split()[0], '')}")
    result = CliRunner().invoke(app, ["-q", *words])
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert set(keys.split(", ")) <= set(printed)
    if words[0] == "eval":
        row = printed["metrics"][0]
        names = ["metric", "value", "uncertainty", "corrected", "reference", "real_images"]
        assert list(row) == [*names, "jackknife"]
        described = (ROOT / "docs/formats.md").read_text()
        assert f"{{{', '.join(row)}}}" in described
        assert f"{{{', '.join(row['jackknife'])}}}" in described


def test_there_are_examples():
    assert [line.split()[0] for line, _ in EXAMPLES] == ["train", "eval", "sweep-s", "inspect"]
