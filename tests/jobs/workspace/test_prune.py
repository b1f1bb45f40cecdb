"""Mirrors cdm_cli/jobs/workspace/prune.py: what goes can be made again, and is no number.

Here too: needs.py, removable.py, stores.py.
"""

import fcntl
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.cascade.snapshot import save_best
from cdm_cli.data import lock, pruned
from cdm_cli.data.store import open_store
from cdm_cli.errors import MissingError, StoppedError, UsageError
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.sweep.sweep import run as sweep
from cdm_cli.jobs.workspace.prune import plan, run
from cdm_cli.options.sweeping import SweepSOptions
from cdm_cli.options.workspace import PruneOptions
from tests.asking import as_typed
from tests.data.stores import flip
from tests.jobs.sweep.sweeping import JUDGE, files, write_workspace
from tests.jobs.workspace.test_ls import rows
from tests.tiny import Told, in_new_folder, net_of, sr_config, write_store
from tests.trained import train, write_data

STEPS = ["step-00000002", "step-00000004", "step-00000006"]
POINTS = ["none-s0000.h5", "non-truncated-s0005.h5", "truncated-s0005.h5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of three points, and runs/trained of three checkpoints."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        swept()
        write_data(home / "more.h5")
        train(home, "training.keep=9", name="trained", data=home / "more.h5", steps=6)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(s=(0, 5), told=None):
    options = as_typed(SweepSOptions, lowres="lowres.h5", s=s, judge=JUDGE)
    return sweep(options, told or Told())


def prune(path=".", **how):
    return run(PruneOptions(Path(path), **({"yes": True} | how)), Told())


def going(path="."):
    return [Path(row["path"]).name for row in plan(PruneOptions(Path(path)), Told()).remove]


def steps(name="trained"):
    return [path.name for path in list_checkpoints(Path("runs") / name)]


def provenance_of(weights):
    """Return the provenance of a store that some weights made."""
    found = next(row for row in digests() if row.name == weights)
    return {"parents": [{"role": "stage", "name": "trained", "digest": found.digest}]}


def digests():
    from cdm_cli.cascade.stagefile import read_stage_file
    from cdm_cli.jobs.workspace.stages import find_stage_weights, select_readable

    return select_readable(
        find_stage_weights(Path("runs/trained"), read_stage_file(Path("runs/trained")))
    )


def test_old_checkpoints_and_judged_images_go_and_numbers_stay(home):
    before = files(home / "sweep")
    assert going() == [*STEPS[:2], *sorted(POINTS)]
    result = prune()
    assert [Path(row["path"]).name for row in result.removed] == [*STEPS[:2], *sorted(POINTS)]
    assert result.bytes == sum(row["bytes"] for row in result.removed) > 0
    assert steps() == STEPS[2:]
    after = files(home / "sweep")
    assert {name: after[name] for name in before if name not in POINTS} == {
        name: data for name, data in before.items() if name not in POINTS
    }
    assert not set(POINTS) & set(after)
    assert going() == []
    assert prune().removed == []


def test_a_pruned_point_counts_as_judged_and_the_sweep_goes_on(home, monkeypatch):
    expected = swept((0, 5, 7)).table.to_json()
    shutil.rmtree(home / "sweep")
    swept()
    prune("sweep")
    told = Told()
    assert swept(told=told).table.to_json()["rows"]
    assert not list(home.glob("sweep/*.h5"))
    assert swept((0, 5, 7)).table.to_json() == expected
    assert [path.name for path in home.glob("sweep/*.h5")] == ["non-truncated-s0007.h5"]


def test_what_was_pruned_is_made_again_by_the_command_that_is_said(home):
    with open_store(home / "sweep/truncated-s0005.h5") as store:
        digest = store.digest
    prune()
    for words in (["grid"], ["verify"], ["verify", "--replay", "1"], ["inspect"], ["eval", "fid"]):
        done = CliRunner().invoke(app, [*words, "sweep/truncated-s0005.h5"])
        assert done.exit_code == 66
        assert "was pruned: its 66 images were removed" in done.stderr
        assert "its numbers are in sweep/truncated-s0005.json" in done.stderr
    command = shlex.split(done.stderr.partition("Next: ")[2])
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    with open_store(home / "sweep/truncated-s0005.h5") as store:
        assert store.digest == digest
    assert rows("sweep")["truncated-s0005.h5"].state == "finished"
    assert going() == ["truncated-s0005.h5"]


def test_the_weights_that_made_a_store_stay_and_so_does_what_was_enlarged(home):
    row = digests()[-2]
    assert row.name == STEPS[1]
    arrays = {
        "ids": np.array([0]), "labels": np.array([0]), "images/8": np.zeros((1, 8, 8, 3), np.uint8),
    }  # fmt: skip
    write_store(home / "a.h5", "samples", {"": arrays}, provenance=provenance_of(STEPS[1]))
    with open_store(home / "sweep/none-s0000.h5") as store:
        parent = {"role": "lowres", "name": "none-s0000.h5", "digest": store.digest}
    write_store(home / "b.h5", "samples", {"": arrays}, provenance={"parents": [parent]})
    assert going() == [STEPS[0], *sorted(POINTS[1:])]
    assert rows("trained")[STEPS[1]].note == "made a.h5"
    kept = plan(PruneOptions(), Told()).kept
    assert kept == [{"path": "sweep/none-s0000.h5", "why": "b.h5 was made from it"}]


def test_the_weights_of_a_pruned_point_stay(home):
    """They make it again; those of --select and of the lowest FID of a curve stay, too."""
    score = json.dumps({"metric": "fid", "value": 4.0})
    save_best(home / "runs/trained", net_of(sr_config()).state_dict(), 2, score)
    assert STEPS[0] not in going()
    record = pruned.Pruned(1, 8, 10, "e" * 64, "cdm sample", "c.json", provenance_of(STEPS[1]))
    pruned.write_record(home / "c.h5", record)
    assert not {*STEPS} & {*going()}


@pytest.mark.parametrize("damaged", [STEPS[2], STEPS[1]])
def test_the_newest_checkpoint_that_is_whole_stays(home, damaged):
    """A training falls back on it where the newest is damaged."""
    flip(home / "runs/trained/checkpoints" / damaged / "optimizer.safetensors", -5)
    gone = {STEPS[2]: [STEPS[0]], STEPS[1]: STEPS[:2]}[damaged]
    assert [name for name in going("trained")] == gone


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("rm runs/sr/ema.safetensors", "sr, which it was made from, is not here as it was"),
        ("rm lowres.h5", "lowres.h5, which it was made from, is not here as it was"),
        ("mv sweep/none-s0000.json x", None),
        ("echo '{}' > sweep/none-s0000.json", "none-s0000.json has no numbers of these images"),
        ("cp sweep/truncated-s0005.h5 sweep/none-s0000.h5", "no numbers of these images"),
    ],
)
def test_images_stay_that_cannot_be_made_again_or_were_not_judged(home, change, why):
    subprocess.run(change, shell=True, check=True)
    assert "none-s0000.h5" not in going()
    kept = {Path(row["path"]).name: row["why"] for row in plan(PruneOptions(), Told()).kept}
    assert why is None or why in kept["none-s0000.h5"]
    prune()
    assert (home / "sweep/none-s0000.h5").exists()


def test_where_a_job_works_nothing_goes(home):
    with hold_lock(home / "runs/trained"), lock.hold_directory(home / "sweep", alone=False):
        assert going() == []
        assert [row["why"] for row in plan(PruneOptions(), Told()).kept] == [
            "another job works in it"
        ] * 2
        result = prune()
    assert result.removed == []
    failure = result.failure()
    assert isinstance(failure, StoppedError)
    assert "runs/trained is being trained by process" in str(failure)
    assert steps() == STEPS
    assert prune().failure() is None


def test_a_sweep_keeps_others_from_its_directory_while_it_runs(home):
    busy = []

    class Watching(Told):
        def say(self, line):
            busy.append(lock.is_in_use(home / "sweep"))
            super().say(line)

    swept((0, 5, 7), told=Watching())
    assert any(busy)
    assert not lock.is_in_use(home / "sweep")


def test_half_a_checkpoint_goes_too(home):
    (home / "runs/trained/checkpoints/step-00000002/manifest.json").unlink()
    assert going("trained") == [STEPS[1], STEPS[0]]
    prune("trained")
    assert os.listdir(home / "runs/trained/checkpoints") == STEPS[2:]


def test_only_what_was_agreed_to_goes(home):
    assert prune(yes=False, agreed=()).removed == []
    result = prune(yes=False, agreed=("runs/trained/checkpoints/step-00000002", "/etc/passwd"))
    assert [Path(row["path"]).name for row in result.removed] == [STEPS[0]]
    with pytest.raises(UsageError):
        prune(yes=False)


def test_a_dry_run_removes_and_writes_nothing(home):
    before = sorted(home.rglob("*"))
    done = CliRunner().invoke(app, ["prune", "--dry-run", "--json"])
    assert len(json.loads(done.stdout)["remove"]) == 5
    assert sorted(home.rglob("*")) == before


def test_a_dry_run_says_first_what_can_go_or_that_nothing_can(home):
    def first():
        return CliRunner().invoke(app, ["prune", "--dry-run"]).stdout.splitlines()[0]

    assert first().startswith("2 old checkpoints and the images of 3 judged points, ")
    prune()
    assert first() == "nothing can go"


def test_without_a_terminal_it_is_refused_and_on_one_asked(home):
    done = CliRunner().invoke(app, ["prune"])
    assert done.exit_code == 2
    assert "Remove 2 old checkpoints and the images of 3 judged points" in done.stderr
    assert "nothing was removed" in done.stderr
    assert steps() == STEPS
    assert "[y/N]" in on_terminal("n")
    assert steps() == STEPS
    on_terminal("y")
    assert steps() == STEPS[2:]


def on_terminal(reply):
    """Return what `cdm prune` says on a terminal on which a person gives a reply."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "cdm_cli", "prune", "runs/trained"]
    os.write(ours, f"{reply}\n".encode())
    done = subprocess.run(words, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, check=True)
    assert done.returncode == 0
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    return said


def test_what_is_no_workspace_is_said(home):
    with pytest.raises(MissingError):
        prune("absent")


@pytest.mark.parametrize("text", ["", "[]", '{"num": 1}', "\x00", '{"num": "a", "resolution": 1}'])
def test_a_record_of_a_stranger_is_no_record(tmp_path, text):
    (tmp_path / "a.h5.pruned").write_text(text)
    assert pruned.read_record(tmp_path / "a.h5") is None
    assert "does not exist" in pruned.missing_error(tmp_path / "a.h5").what
    (tmp_path / "a.h5.pruned").unlink()
    os.mkfifo(tmp_path / "a.h5.pruned")
    assert pruned.read_record(tmp_path / "a.h5") is None


def test_two_prunes_do_not_meet(home):
    with lock.hold_directory(home / "sweep", alone=True):
        assert "another job works in sweep" in str(prune("sweep").failure())
    fd = os.open(home / "sweep", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was given back
    os.close(fd)
