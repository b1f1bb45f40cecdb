"""Every hostile file against the functions and commands that open files of its kind.

Each is refused in one line with code 65, 66 or 78; nothing outside is opened, nothing of it is
told; no hang, no crash, and never 256 MB of memory.
"""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError
from tests.hostile import make
from tests.hostile.watched import HANGS, watched

REFUSED = {65, 66, 78}
MEGABYTES = 256
LONG = ("a header full of lists", "a list of lists")


@pytest.fixture(scope="module", autouse=True)
def warmed(tmp_path_factory):
    """Import what the commands import, so that the children measure the files alone."""
    home = tmp_path_factory.mktemp("warm")
    make.good_store(home / "good.h5")
    make.good_stage(home / "good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for words in ("inspect good.h5", "verify good.h5", "grid good.h5", "inspect good",
                      "sample good --num 2 -o x.h5"):  # fmt: skip
            assert CliRunner().invoke(app, words.split()).exit_code == 0, words


@pytest.fixture
def outside(tmp_path, monkeypatch):
    outside = make.outside_of(tmp_path)
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return outside


def refusal(call, *args):
    """Return the exit code and line of what a function raises."""
    try:
        opened = call(*args)
    except CdmError as error:
        return error.exit_code, f"cdm: error: {error}", ""
    return 0, repr(opened), ""


def command(*words):
    """Return the exit code, messages and results of a command."""
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stderr, result.stdout


def check(outside, *attempts):
    """Make all attempts in one watched child, and judge each."""
    seen = watched(lambda: [attempt() for attempt in attempts])
    assert seen.code == 0, seen.told
    for code, said, results in seen.told:
        assert code in REFUSED, said
        errors = [line for line in said.splitlines() if line.startswith("cdm: error:")]
        assert len(errors) == 1, said
        assert len(errors[0]) < 8000
        assert results == ""
        assert make.SECRET.decode() not in said
    assert not [name for name in seen.opened if name.startswith(str(outside))]
    assert not [name for name in seen.opened if name == "/dev/zero"]
    assert seen.megabytes < MEGABYTES
    assert seen.seconds < HANGS


def check_store(outside, path):
    check(
        outside,
        lambda: refusal(open_store, path),
        lambda: refusal(open_store, path, True),
        lambda: command("inspect", path),
        lambda: command("verify", path),
        lambda: command("grid", path),
    )


def check_stage(outside, path, name=""):
    """Those of LONG in a child each: what one takes is most of what memory may be needed."""
    attempts = (
        lambda: refusal(load_stage, path, Path("runs")),
        lambda: command("sample", path, "--num", "2", "--device", "cpu"),
    )
    for some in [(one,) for one in attempts] if name in LONG else [attempts]:
        check(outside, *some)
    assert not os.path.exists("lowres.h5")


@pytest.mark.parametrize("name", make.HDF5)
def test_hdf5_that_is_no_store(outside, name):
    make.HDF5[name](outside.parent / "inside/a.h5", outside)
    check_store(outside, "a.h5")


@pytest.mark.parametrize("name", make.SEALED)
def test_stores_whose_seals_are_right(outside, name):
    make.SEALED[name](outside.parent / "inside/a.h5", outside)
    check_store(outside, "a.h5")


@pytest.mark.parametrize("text", ["[]", "{}", '""', "1e9"])
def test_a_store_with_provenance_of_megabytes_is_read_in_little_memory(outside, text):
    """Such a store breaks no rule. It may be long to lay out, but memory has its limit."""
    make.sealed(make.long_json(text, 2_000_000))(outside.parent / "inside/a.h5", outside)
    seen = watched(lambda: open_store("a.h5").close())
    assert seen.code == 0, seen.told
    assert seen.megabytes < MEGABYTES


@pytest.mark.parametrize("name", make.TENSORS)
def test_weights_that_are_none(outside, name):
    make.good_stage(outside.parent / "inside/runs/base")
    path = outside.parent / "inside/runs/base/ema.safetensors"
    path.unlink()
    make.TENSORS[name](path, outside)
    check_stage(outside, "base", name)
    assert not os.path.exists("executed")


@pytest.mark.parametrize("name", make.STAGES)
def test_stage_files_that_are_none(outside, name):
    stage = make.good_stage(outside.parent / "inside/runs/base")
    make.STAGES[name](stage / "stage.json", outside)
    check_stage(outside, "base", name)


@pytest.mark.parametrize("name", make.THINGS)
def test_things_that_are_no_store(outside, name):
    make.THINGS[name](outside.parent / "inside/a.h5", outside)
    check_store(outside, "a.h5")


@pytest.mark.parametrize("file", ["stage.json", "ema.safetensors"])
@pytest.mark.parametrize("name", make.THINGS)
def test_things_in_a_stage_directory(outside, name, file):
    stage = make.good_stage(outside.parent / "inside/runs/base")
    (stage / file).unlink()
    make.THINGS[name](stage / file, outside)
    check_stage(outside, "base")


@pytest.mark.parametrize(
    "name",
    ["a\nb.h5", "a\x1b[31m.h5", "a\u202eb.h5", os.fsdecode(b"\xff\xfe.h5"), " ", "-", "n" * 255,
     "n" * 300, "a" * 5000],
)  # fmt: skip
def test_names_of_files(outside, name):
    """Also of files that exist, and are no stores: the line stays one line, and printable."""
    try:
        with open(outside.parent / "inside" / name, "wb") as file:
            file.write(b"hello")
    except OSError:
        assert len(name) > 255
    seen = watched(lambda: command("inspect", "--", name))
    code, said, results = seen.told
    assert code in REFUSED, said
    assert said.startswith("cdm: error:")
    assert said.rstrip("\n").isprintable()
    assert results == ""


def test_what_a_store_says_cannot_steer_the_terminal(outside):
    """Names of classes and commands are shown, and may have been chosen by a stranger."""
    spec = make.samples_spec(
        classes=("\x1b]0;owned\x07", "a\nb", "\u202etxt", "d"),
        provenance={"command": "\x1b[2Jcdm", "identity": {}},
    )
    with make.create("a.h5", spec) as store:
        make.fill(store)
    code, _, results = command("inspect", "a.h5")
    assert code == 0
    assert all(line.isprintable() for line in results.split("\n"))


def shortly_read(writers):
    """Leave out what takes seconds to read, and is read above."""
    return [write for name, write in writers.items() if name not in LONG]


def test_a_list_of_all_of_them(outside):
    """`cdm ls` says of each what is wrong with it; that is no error of the list."""
    inside = outside.parent / "inside"
    for number, (name, write) in enumerate((make.HDF5 | make.SEALED | make.THINGS).items()):
        write(inside / f"{number} {name[:20]}.h5", outside)
    for number, write in enumerate(shortly_read(make.STAGES)):
        write(make.good_stage(inside / f"runs/s{number}") / "stage.json", outside)
    for number, write in enumerate(shortly_read(make.TENSORS)):
        weights = make.good_stage(inside / f"runs/t{number}") / "ema.safetensors"
        weights.unlink()
        write(weights, outside)
    seen = watched(lambda: command("ls"))
    assert seen.code == 0, seen.told
    code, _, text = seen.told
    assert code == 0
    assert text.count("broken") > 70
    assert make.SECRET.decode() not in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert not [name for name in seen.opened if name.startswith((str(outside), "/dev/zero"))]
    assert seen.megabytes < MEGABYTES
