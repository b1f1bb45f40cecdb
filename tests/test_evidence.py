"""docs/evidence/: command lines alone; each of them parses, and docs/evidence.md tells of it."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cdm_cli.app import app
from cdm_cli.presets import plan_of_preset
from tests.tree import ROOT

GROUP = typer.main.get_command(app)
SCRIPTS = sorted((ROOT / "docs" / "evidence").glob("*.sh"))
VALUES = {"1": "train.zip", "2": "test.zip", "judge": "features", "seed": "0", "arm": "none"}
AROUND = re.compile(
    r"set -euo pipefail|judge=\$\{3:-features\}|seed=\$\{4:-0\}|for \w+ in [\w\- ]+; do|done"
)

ARM = re.compile(r"^\| `([\w-]+)`[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|.*\|$", re.M)

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def lines_of(script: Path) -> list[str]:
    """Return the lines of a script that are no comments."""
    lines = (line.strip() for line in script.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def parse(line: str) -> dict[str, object]:
    """Return the flags of a command line whose variables have values."""
    name, *words = shlex.split(re.sub(r"\$(\w+)", lambda found: VALUES[found[1]], line))[1:]
    if words and f"{name} {words[0]}" in GROUP.commands:
        name, *words = f"{name} {words[0]}", *words[1:]
    return GROUP.commands[name].make_context(name, words).params


@each_script
def test_a_script_is_nothing_but_commands(script):
    others = [line for line in lines_of(script) if not line.startswith("cdm ")]
    assert [line for line in others if not AROUND.fullmatch(line)] == []


@each_script
def test_every_command_of_a_script_parses(script):
    for line in lines_of(script):
        if line.startswith("cdm "):
            flags = parse(line)
            if "preset" in flags:
                plan_of_preset(flags["preset"], tuple(flags["overrides"] or ()))


@each_script
def test_the_page_says_how_a_script_is_run(script):
    usage = f"    bash docs/evidence/{script.name} train.zip test.zip\n"
    assert usage in (ROOT / "docs" / "evidence.md").read_text()


def test_the_judge_of_a_script_may_be_inception():
    """Inception knows no classes of ours: accuracy, which asks for them, takes a judge by name."""
    lines = [line for script in SCRIPTS for line in lines_of(script) if "$judge" in line]
    assert lines
    assert [line for line in lines if "accuracy" in line.split()[2]] == []


def results_of(name: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Return value and error by what was judged, metric and reference: those of the arms."""
    with (ROOT / "docs" / "evidence" / "results" / f"{name}.csv").open() as file:
        return {
            (row["of"], row["metric"], row["reference"]): (float(row["value"]), float(row["error"]))
            for row in csv.DictReader(file)
            if row["of"].endswith(".h5") and row["error"]
        }


def section_of(name: str) -> str:
    """Return what the page says under the line that runs a script."""
    page = (ROOT / "docs" / "evidence.md").read_text()
    return page.split(f"    bash docs/evidence/{name}.sh", 1)[1].split("    bash docs/evidence/")[0]


@pytest.mark.parametrize("name", ["cascading", "cascading_8", "dropout_flips", "ablations"])
def test_the_tables_of_the_page_are_those_of_the_results(name):
    found, arms = results_of(name), 0
    for arm, train, val, score in ARM.findall(section_of(name)):
        arms += 1
        for seed in (0, 1):
            for told, metric, reference in (
                (train, "fid", "train"),
                (val, "fid", "val"),
                (score, "is", ""),
            ):
                value, error = found[f"{arm}-{seed}.h5", metric, reference]
                number, *after = told.split(", ")[seed].split(" ± ")
                assert float(number) == pytest.approx(value, abs=0.51 * 10 ** -places(number))
                for one in after:
                    assert float(one) == pytest.approx(error, abs=0.51 * 10 ** -places(one))
    assert arms == len({of.rsplit("-", 1)[0] for of, _, _ in found})


POINT = re.compile(r"^\| (\d+) \| (.+ · .+) \|$", re.M)


def test_the_searches_of_the_cascade_are_those_of_the_results():
    """The longer trainings, seeds 0 and 1 in a cell, and below them the shorter one."""
    longer, shorter = section_of_cascade().split("Stages of 5000 and 4500 steps, 2000")
    for table, names in ((longer, ("cascade-0", "cascade-1")), (shorter, ("cascade-shorter",))):
        points = POINT.findall(table)
        assert [int(s) for s, _ in points] == [0, 251, 501, 751, 1001, 1251, 1501]
        for s, cells in points:
            kinds = ("none",) if s == "0" else ("truncated", "non-truncated")
            told = [cell for cell in cells.split(" | ") if cell != "the same"]
            for kind, cell in zip((*kinds, "ground-truth"), told, strict=True):
                check_point(cell, [points_of(name)[f"{kind} s = {s}"] for name in names])


def section_of_cascade() -> str:
    """Return the first section of the page."""
    page = (ROOT / "docs" / "evidence.md").read_text()
    return page.split("## A cascade and its s")[1].split("\n## ")[0]


def points_of(name: str) -> dict[str, list[float]]:
    """Return FID against train and val, and IS, of every point of a search."""
    found: dict[str, list[float]] = {}
    with (ROOT / "docs" / "evidence" / "results" / f"{name}.csv").open() as file:
        for row in csv.DictReader(file):
            if row["metric"] in ("fid", "is"):
                found.setdefault(row["of"], []).append(float(row["value"]))
    return found


def check_point(cell: str, found: list[list[float]]) -> None:
    """Check what a cell says: for each metric a number of every search."""
    for k, told in enumerate(cell.split(" · ")):
        numbers = told.strip("*").split(", ")
        for number, values in zip(numbers, found, strict=True):
            assert float(number) == pytest.approx(values[k], abs=0.51 * 10 ** -places(number))


def places(number: str) -> int:
    """Return how many digits stand behind the point."""
    return len(number.partition(".")[2])


@pytest.mark.parametrize("there", ["", "store,value,uncertainty\na.h5,1,often\n"])
def test_a_table_is_written_over_by_numbers_alone(tmp_path, there):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "one.csv").write_text(there)
    out = tmp_path / "results.csv"
    out.write_text("results")
    script = [sys.executable, str(ROOT / "benchmarks" / "study_results.py")]
    assert subprocess.run(
        [*script, tmp_path / "study", "-o", out], stderr=subprocess.PIPE
    ).returncode
    assert out.read_text() == "results"
