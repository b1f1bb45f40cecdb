"""Mirrors cdm_cli/jobs/workspace/ls.py: what is there is a row, whatever state it is in.

Here too: folders.py, look.py, rows.py, scores.py, stages.py.
"""

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.snapshot import save_best
from cdm_cli.data import lock
from cdm_cli.data.store import create, open_store
from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.workspace.ls import run
from cdm_cli.jobs.workspace.rows import Row, in_bytes
from cdm_cli.options.workspace import ListOptions
from tests.data.stores import filled, samples_spec
from tests.tiny import Told, arrays_of, net_of, sr_config, write_stage, write_store
from tests.trained import train, write_data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with data and a stage that was stopped at step 5 of 8."""
    home = tmp_path_factory.mktemp("trained")
    write_data(home / "data.h5")
    train(home)
    path = home / "runs/base/stage.json"
    stage = json.loads(path.read_text())
    stage["plan"]["training"]["steps"] = 8
    path.write_text(json.dumps(stage))
    return home


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def rows(path="."):
    return {row.name: row for row in run(ListOptions(Path(path)), Told()).rows}


def listed(*words):
    result = CliRunner().invoke(app, ["ls", *words])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_stage_is_stopped_training_or_finished(here):
    stopped = rows()["base"]
    assert (stopped.kind, stopped.preset, stopped.resolution) == ("base", "tiny-base8", "8")
    assert (stopped.state, stopped.done, stopped.of) == ("stopped", 5, 8)
    assert stopped.made_from == ("data.h5",)
    with hold_lock(here / "runs/base"):
        assert rows()["base"].state == "training"
    assert rows()["base"].state == "stopped"


def test_a_finished_stage_and_one_that_was_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.h5")
    train(tmp_path)
    write_stage(tmp_path / "runs/sr", sr_config())
    assert (rows()["base"].state, rows()["base"].done) == ("finished", 5)
    assert rows()["sr"].resolution == "8 -> 16"


def test_a_store_is_finished_unfinished_or_being_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance = {"parents": [{"role": "stage", "name": "base", "digest": "d"}]}
    write_store(tmp_path / "a.h5", "samples", {"": arrays_of(20, (8, 16))}, provenance=provenance)
    write_store(tmp_path / "b.h5", "samples", {"": arrays_of(20, (8,))}, block_size=8, blocks=2)
    with create(tmp_path / "c.h5", samples_spec()):
        found = rows()
    assert [found[f"{name}.h5"].state for name in "abc"] == [
        "finished", "unfinished", "being written",
    ]  # fmt: skip
    assert (found["a.h5"].done, found["a.h5"].of) == (20, 20)
    assert (found["b.h5"].done, found["b.h5"].of) == (16, 20)
    assert (found["a.h5"].resolution, found["a.h5"].made_from) == ("8, 16", ("base",))
    assert found["a.h5"].size == (tmp_path / "a.h5").stat().st_size
    assert rows()["c.h5"].state == "unfinished"


def test_the_fid_of_a_store_is_that_of_the_tables_about_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "a.h5", samples_spec())
    with open_store(tmp_path / "a.h5") as store:
        digest = store.digest
    for name, reference, value in (("1", "train", 9.0), ("2", "train", 7.5), ("3", "val", 1.0)):
        convention = {"samples_digest": digest}
        row = {"metric": "fid", "value": value, "reference": reference, "convention": convention}
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": [row, {"metric": "is"}, 3]}))
    (tmp_path / "4.json").write_text('{"rows": [{"metric": "fid", "value": 1e999}]}')
    (tmp_path / "5.json").write_text("[" * 100_000)
    assert rows()["a.h5"].fid == 7.5  # of val, another number


def test_the_checkpoints_of_a_stage_say_what_they_are_kept_for(here):
    stage = here / "runs/base"
    ema = stage / "checkpoints/step-00000004/ema.safetensors"
    points = [{"saved": {"sha256": read_metadata(ema)["sha256"]},
               "rows": [{"metric": "fid", "value": 3.5, "convention": {}}]}]  # fmt: skip
    (here / "curve").mkdir()
    (here / "curve/curve.json").write_text(json.dumps({"points": points}))
    found = rows("base")
    assert list(found) == ["ema", "step-00000004", "step-00000005"]
    assert (found["step-00000004"].fid, found["step-00000004"].note) == (3.5, "best")
    assert found["step-00000005"].note == "newest"
    assert rows()["base"].fid == 3.5
    assert {row.state for row in found.values()} == {"whole"}


def test_the_best_of_select_is_a_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = sr_config()
    stage = write_stage(tmp_path / "runs/sr", config)
    score = json.dumps({"metric": "fid", "value": 4.25})
    save_best(stage, net_of(config, 1).state_dict(), 7, score)
    assert rows()["sr"].fid == rows("sr")["best"].fid == 4.25


def test_a_race_is_no_judged_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep").mkdir()
    for name in ("sweep", "race", "none-s0000"):
        (tmp_path / f"sweep/{name}.json").write_text("{}")
    assert rows()["sweep/"].state == "1 judged, race: 0 of 0 left"
    (tmp_path / "sweep/none-s0000.json").unlink()
    race = {"points": [{"s": 0}, {"s": 5}, {"s": 9}], "left": [{"s": 5}]}
    (tmp_path / "sweep/race.json").write_text(json.dumps(race))
    assert rows()["sweep/"].state == "race: 1 of 3 left"


def test_what_is_broken_is_a_row_that_says_so(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = (here / "data.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[:-1])
    (tmp_path / "b.h5").write_bytes(b"\0" * 99)
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/stage.json").write_text("{}")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/sweep.json").write_text("[]")
    found = rows()
    assert {row.state for row in found.values()} == {"broken"}
    assert "bytes, a store of its contents has" in found["a.h5"].note
    assert "all zeros" in found["b.h5"].note
    assert "stage.json" in found["x"].note
    assert "no JSON object" in found["sweep/"].note


def test_a_file_of_others_is_none_of_ours_and_not_broken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("theirs.h5", "w") as file:
        file["x"] = np.zeros((2, 4, 4, 3), np.uint8)
    Path("text.h5").write_bytes(b"hello")
    os.mkfifo("fifo.h5")
    found = rows()
    assert found.pop("fifo.h5").state == "broken"
    assert {(row.kind, row.state) for row in found.values()} == {("file", "not a store")}
    assert "cdm import" in found["theirs.h5"].note
    assert "no HDF5 file" in found["text.h5"].note


def test_no_link_is_followed(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.h5").symlink_to(here / "data.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "runs").symlink_to(here / "runs")
    (tmp_path / "more").symlink_to(here)
    assert {name: row.state for name, row in rows().items()} == dict.fromkeys(
        ("runs", "data.h5", "loop.h5"), "not followed"
    )
    (tmp_path / "runs").unlink()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/base").symlink_to(here / "runs/base")
    assert rows()["runs/base"].state == "not followed"


def test_nothing_is_written(here):
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    listed()
    listed("base")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_text_has_the_columns_that_say_something_and_json_has_all(here):
    header, *lines = listed().splitlines()
    assert header.split()[:4] == ["name", "kind", "resolution", "preset"]
    assert "note" not in header
    assert any(line.startswith("base ") and "5 of 8" in line for line in lines)
    told = json.loads(listed("--json"))
    base = next(row for row in told["rows"] if row["name"] == "base")
    assert (base["done"], base["of"], base["state"], base["note"]) == (5, 8, "stopped", "")
    assert base["when"][:2] == "20"


def test_an_empty_workspace_says_how_to_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cdm demo" in listed()
    with pytest.raises(MissingError):
        run(ListOptions(tmp_path / "absent"), Told())


def test_a_file_of_another_name_than_a_store_has_is_there_and_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInputError, match=r"notes\.txt is no workspace, no stage, and no store"):
        run(ListOptions(tmp_path / "notes.txt"), Told())


def test_a_time_that_has_no_date_breaks_no_list():
    row = Row(name="a.h5", kind="samples", state="finished", when=1e20)
    assert (row.cells()["when"], row.values()["when"]) == ("", "")


def test_a_look_disturbs_no_job_that_begins_meanwhile(tmp_path):
    """Looking takes a lock for an instant; the job that wants it then looks once more."""
    filled(tmp_path / "a.h5", samples_spec())
    path = tmp_path / "runs/x"
    path.mkdir(parents=True)
    (path / ".lock").touch()
    for name, begin in (("a.h5", lambda: open_store(tmp_path / "a.h5", writable=True).close()),
                        ("runs/x/.lock", lambda: hold_lock(path).__enter__())):  # fmt: skip
        fd = os.open(tmp_path / name, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda fd=fd: (time.sleep(0.03), os.close(fd)))
        thread.start()
        begin()
        thread.join()
    assert lock.LOOKS * lock.LOOK < 0.5


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (123_456, "123 kB"),
     (31_250_000, "31.2 MB"), (10**15, "1000 TB")],
)  # fmt: skip
def test_bytes_in_three_digits(size, said):
    assert in_bytes(size) == said


def test_a_row_of_a_stranger_is_cut():
    row = Row(name="n" * 5000, kind="base", state="stopped", preset="p" * 5000)
    assert max(map(len, row.cells().values())) <= 100
    assert row.values()["preset"] == "p" * 5000
