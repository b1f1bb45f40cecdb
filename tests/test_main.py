"""Mirrors cdm_cli/__main__.py: a caller that closed streams is served all the same."""

import shlex
import subprocess
import sys

import pytest
from PIL import Image

from cdm_cli.data.store import open_store
from tests.tiny import arrays_of, write_store


def run(words, closed, cwd):
    line = f"{shlex.join([sys.executable, '-m', 'cdm_cli', *words])} {closed}"
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error_of_a_command(closed, tmp_path):
    done = run(["completions", "bash"], closed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_made_is_made_and_no_line_of_the_report_gets_into_it(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    words = ["prepare", ".", "-o", "data.h5"]
    assert run(words, "<&- >&- 2>&-", tmp_path).returncode == 0
    with open_store(tmp_path / "data.h5") as store:
        store.require_finished()


def test_errors_keep_their_exit_code(tmp_path):
    assert run(["inspect", "absent.h5"], "2>&-", tmp_path).returncode == 66


TRAINED = """
import sys
from cdm_cli.app import main
sys.argv = "cdm train base --preset tiny-base8 --device cpu --steps 1 --batch-size 4".split()
sys.argv += "--set model.base_channels=8 --set model.num_heads=1".split()
sys.argv += "--set training.grid_every=0".split()
try:
    main()
finally:
    print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_a_training_that_compiles_nothing_loads_no_compiler(tmp_path):
    """It takes two to five seconds; optimizers and deterministic modes would bring it along."""
    write_store(tmp_path / "data.h5", "prepared", {"train": arrays_of(64, [8])})
    command = [sys.executable, "-c", TRAINED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (tmp_path / "runs" / "base" / "ema.safetensors").exists()
