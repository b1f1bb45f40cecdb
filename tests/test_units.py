"""Mirrors cdm_cli/units.py."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import cdm_cli
from cdm_cli.units import format_count, format_disk, format_duration, format_memory

PACKAGE = Path(cdm_cli.__file__).parent


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "less than a second"), (8.4, "8 s"), (60, "1 min"), (100, "1 min 40 s"),
        (3570, "1 h"), (3569, "59 min 29 s"), (9540, "2 h 39 min"), (9569, "2 h 39 min"),
        (86399, "1 day"), (86400 + 4 * 3600, "1 day 4 h"), (3 * 86400 - 1, "3 days"),
    ],
)  # fmt: skip
def test_a_time_has_two_units_and_never_sixty_of_one(seconds, said):
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "sold", "held"),
    [
        (0, "0 B", "0 B"), (999, "999 B", "999 B"), (1000, "1.0 kB", "1000 B"),
        (2**20, "1.0 MB", "1.0 MiB"), (20_800_000_000, "20.8 GB", "19.4 GiB"),
        (999_999_999, "1.0 GB", "954 MiB"), (4 * 2**30, "4.3 GB", "4.0 GiB"),
    ],
)  # fmt: skip
def test_bytes_have_three_digits_or_fewer(count, sold, held):
    assert (format_disk(count), format_memory(count)) == (sold, held)


def test_one_thing_is_not_several():
    nouns = ("image", "class", "super-resolution stage", "batch")
    assert [format_count(1, noun) for noun in nouns] == [f"1 {noun}" for noun in nouns]
    several = ("2 images", "2 classes", "2 super-resolution stages", "2 batches")
    assert tuple(format_count(2, noun) for noun in nouns) == several
    assert format_count(0, "class") == "0 classes"
    said = [format_count(n, "block", verb) for verb in ("are", "were", "have") for n in (1, 2)]
    assert [words.split(maxsplit=1)[1] for words in said] == [
        "block is", "blocks are", "block was", "blocks were", "block has", "blocks have"
    ]  # fmt: skip


COUNTED = re.compile(r" (?:block|channel|checkpoint|file|label|sample|stage|step)s\b")
SEVERAL = {  # two or more for certain, no numbers, or recorded beside numbers
    "classes.py: count",
    "config.py: width",
    "curve.py: LEAST_JUDGED",
    "dynamic.py: steps",
    "endings.py: in_a_row",
    "endings.py: streak",
    "labels.py: name",
    "labels.py: suffix",
    "openai.py: T",
    "plan.py: has or 'no'",
    "replay_plan.py: len(how.stochasticity)",
    "report.py: counts.sum()",
    "report.py: recipe.steps",
    "reverse.py: output.shape[1]",
    "schedule_file.py: there",
    "schedules.py: count",
    "schedules.py: steps",
    "schema.py: BLOCKS_LIMIT",
    "select.py: num",
    "table.py: points[0].rows[0].convention.num",
    "verify_stage.py: len(self.files)",
}  # fmt: skip


def test_a_number_in_front_of_what_it_counts_is_put_there_by_format_count():
    found = set[str]()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            found |= {
                f"{path.name}: {ast.unparse(number.value)}"
                for number, words in pairwise(parts)
                if isinstance(number, ast.FormattedValue) and isinstance(words, ast.Constant)
                and COUNTED.match(words.value)
            }  # fmt: skip
    assert found == SEVERAL
