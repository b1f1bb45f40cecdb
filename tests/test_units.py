"""Mirrors cdm_cli/units.py."""

import pytest

from cdm_cli.units import format_count, format_disk, format_duration, format_memory


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
