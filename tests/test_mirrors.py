"""Each module of the jobs has its tests where one looks for them, or it is said where they are.

A test file is named after the module that it mirrors; its first words name others that it tests.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.tree import ROOT

JOBS = ROOT / "cdm_cli/jobs"
MODULES = sorted(path for path in JOBS.glob("*/*.py") if path.name != "__init__.py")
TESTS = sorted(ROOT.glob("tests/jobs/*/test_*.py"))

PAGES, PLOTS = "reporting/test_report.py", "sweep/test_sweep.py"
ELSEWHERE = {
    "cas/page.py": (PAGES, "a part of a page that `cdm report` puts together"),
    "curve/page.py": (PAGES, "a part of a page that `cdm report` puts together"),
    "judging/band.py": (PLOTS, "draws nothing but with the plot of a sweep or a curve"),
    "judging/kept.py": (PAGES, "reads what a page shows of earlier judgements"),
    "judging/probe_score.py": ("training/test_select.py", "scores are of weights in training"),
    "runtime/session.py": ("runtime/test_launch.py", "a session is tested by what processes do"),
    "runtime/stop.py": ("../faults/test_signals.py", "signals are sent to commands, from outside"),
    "training/page.py": (PAGES, "a part of a page that `cdm report` puts together"),
}


def expand(pattern: str) -> list[str]:
    """Return the names of a pattern like race_{judge,file}.py."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [name for word in found[1].split(",") for name in expand(before + word + after)]


def named_by(test: Path) -> set[str]:
    """Return the modules that the first words of a test file name."""
    words = ast.get_docstring(ast.parse(test.read_text())) or ""
    patterns = re.findall(r"[\w/{},]+\.py\b", words)
    return {Path(name).name for pattern in patterns for name in expand(pattern)}


def mirrored(module: Path) -> bool:
    """Whether a test file of the module's own room is called after it, or names it."""
    tests = ROOT / "tests/jobs" / module.parent.name
    return (tests / f"test_{module.name}").exists() or any(
        module.name in named_by(test) for test in tests.glob("test_*.py")
    )


def test_each_module_of_the_jobs_has_its_tests_in_its_own_room_or_a_reason():
    without = {f"{path.parent.name}/{path.name}" for path in MODULES if not mirrored(path)}
    assert without == set(ELSEWHERE)


@pytest.mark.parametrize("place", sorted({place for place, _ in ELSEWHERE.values()}))
def test_what_is_tested_elsewhere_is_tested_there(place):
    assert (ROOT / "tests/jobs" / place).exists()


@pytest.mark.parametrize("test", TESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_the_first_words_of_a_test_file_name_is_there(test):
    there = {path.name for room in ("cdm_cli", "tests") for path in (ROOT / room).rglob("*.py")}
    assert not named_by(test) - there
