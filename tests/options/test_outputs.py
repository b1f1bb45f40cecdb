"""Mirrors cdm_cli/options/outputs.py: no command writes one format under the name of another."""

from pathlib import Path

import pytest

from cdm_cli.errors import UsageError
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.files import (
    ExportOptions,
    GridOptions,
    ImportOptions,
    MergeOptions,
    PrepareOptions,
)
from cdm_cli.options.judging import CurveOptions, EvalOptions, TuneOptions
from cdm_cli.options.sampling import SampleOptions, UpsampleOptions
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed

WRITERS = {
    "prepare": (lambda out: as_typed(PrepareOptions, src=Path("a"), out=out), "store"),
    "sample": (lambda out: as_typed(SampleOptions, out=out), "store"),
    "upsample": (lambda out: as_typed(UpsampleOptions, out=out), "store"),
    "merge": (lambda out: as_typed(MergeOptions, parts=(Path("a"),), out=out), "store"),
    "sweep-s": (lambda out: as_typed(SweepSOptions, out=out), "folder"),
    "eval cas": (lambda out: as_typed(CasOptions, out=out), "folder"),
    "eval checkpoints": (lambda out: as_typed(CurveOptions, out=out), "folder"),
    "tune-schedule": (lambda out: as_typed(TuneOptions, out=out), "json"),
    "eval": (lambda out: as_typed(EvalOptions, metrics=("fid",), out=out), "table"),
    "grid": (lambda out: as_typed(GridOptions, out=out), "png"),
    "export": (lambda out: as_typed(ExportOptions, out=out), "export"),
    "import": (lambda out: as_typed(ImportOptions, src=Path("a"), out=out), "import"),
}
GOOD = {
    "store": ["a.h5", "b c/a.H5", "a.hdf5"],
    "folder": ["sweep", "runs.d/v1.2"],
    "json": ["schedule.json"],
    "table": ["a.json", "a.CSV"],
    "png": ["grid.png", "GRID.PNG"],
    "export": ["pictures", "a.npz"],
    "import": ["runs/base", "a.h5"],
}
NAMES = {
    "a.h5", "a.hdf5", "a.png", "a.jpg", "a.json", "a.csv", "a.npz", "a.zip", "a.txt", "a.pt",
    "a.safetensors", "a",
}  # fmt: skip
TAKEN = {
    "store": {"a.h5", "a.hdf5"}, "folder": {"a"}, "json": {"a.json"}, "table": {"a.json", "a.csv"},
    "png": {"a.png"}, "export": {"a.npz", "a"}, "import": {"a.h5", "a.hdf5", "a"},
}  # fmt: skip


@pytest.mark.parametrize("command", WRITERS)
def test_names_that_fit(command):
    make, kind = WRITERS[command]
    for name in GOOD[kind]:
        assert make(Path(name)).out == Path(name)


@pytest.mark.parametrize("command", WRITERS)
def test_a_name_of_another_format_is_refused_with_one_that_fits(command):
    make, kind = WRITERS[command]
    for name in sorted(NAMES - TAKEN[kind]):
        with pytest.raises(UsageError, match=f"-o {name}: ") as caught:
            make(Path(name))
        assert make(Path(caught.value.next.removeprefix("-o ")))


def test_a_store_of_another_name_is_continued(tmp_path):
    (tmp_path / "older.data").write_bytes(b"")
    assert as_typed(SampleOptions, out=tmp_path / "older.data").out == tmp_path / "older.data"


@pytest.mark.parametrize("out", ["", ".", "..", "/"])
def test_a_folder_is_no_file(out):
    with pytest.raises(UsageError, match="this is a folder"):
        as_typed(SampleOptions, out=Path(out))


def test_names_that_no_file_system_takes_are_left_to_it():
    assert SampleOptions(out=Path("9" * 5000 + ".h5"))
    assert SampleOptions(out=Path("a\0b.h5"))


@pytest.mark.parametrize("command", WRITERS)
def test_a_link_to_nothing_is_refused_by_every_command(command, tmp_path):
    make, kind = WRITERS[command]
    name = Path(GOOD[kind][0]).name
    link, target = tmp_path / name, tmp_path / f"there-{name}"
    link.symlink_to(target.name)
    with pytest.raises(UsageError, match="which does not exist") as caught:
        make(link)
    assert caught.value.next == f"-o {target}"
