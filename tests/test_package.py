"""What is handed to others: the source distribution, its licence, and what it says of itself."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib

import pytest

import cdm_cli
from tests.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = (".ci", "benchmarks", "cdm_cli", "completions", "docs", "tests")


def test_the_source_distribution_has_all_that_a_contributor_needs(tmp_path):
    pytest.importorskip("setuptools", "77")
    setup = "import setuptools; setuptools.setup()"
    words = ["-q", "egg_info", "-e", tmp_path, "sdist", "-d", tmp_path]
    subprocess.run([sys.executable, "-c", setup, *words], cwd=ROOT, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert not ours() - packed


def ours() -> set[str]:
    """Return the files that are written by hand: whatever a run or a build leaves is not."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".cff", ".toml")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in [*files, ROOT / "LICENSE"]
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_every_dependency_has_a_floor():
    """A user's old environment is told what is missing, rather than failing somewhere inside."""
    assert [name for name in PROJECT["dependencies"] if ">=" not in name] == []


def test_the_paper_is_cited_alike_in_the_readme_and_for_machines():
    citation = (ROOT / "CITATION.cff").read_text()
    authors = re.findall(r"family-names: (\w+)", citation)
    title = re.search(r'^  title: "(.*)"$', citation, re.MULTILINE)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f'"{title and title[1]}" ({", ".join(authors)}; JMLR 2022)' in readme


LIGHT = "import sys, json, cdm_cli; print(json.dumps([*sys.modules]))"


def test_importing_the_package_loads_nothing():
    """A notebook, a completion and a judge's entry point import it."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    loaded = {name for name in json.loads(done.stdout) if name.startswith("cdm_cli")}
    assert loaded == {"cdm_cli", "cdm_cli.__version__"}
    assert not {"torch", "numpy", "pydantic", "typer", "rich"} & {*json.loads(done.stdout)}


def test_what_is_offered_is_there():
    assert {*cdm_cli.__all__} <= {*dir(cdm_cli)}
    for name in cdm_cli.__all__:
        assert getattr(cdm_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        cdm_cli.smaple  # noqa: B018
    with pytest.raises(ImportError):
        from cdm_cli import smaple  # noqa: F401


def test_its_types_are_offered():
    assert (ROOT / "cdm_cli" / "py.typed").is_file()
