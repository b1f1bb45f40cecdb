import pytest

from cdm_cli.errors import UsageError
from cdm_cli.options.durations import make_duration_check, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("11h50m", 42600), ("2d", 172800), ("1d 2h 3m 4s", 93784)],
)
def test_a_length_of_time_is_read_as_people_type_it(text, seconds):
    assert parse_seconds(text) == seconds
    assert make_duration_check("--budget")(text) == text


@pytest.mark.parametrize("text", ["", "5", "5x", "-5m", "0s", "1.5h", "50m11h", "1e9s", "9999999d"])
def test_anything_else_is_refused_by_the_name_of_its_flag(text):
    with pytest.raises(UsageError, match=f"^--budget {text}: expected a length of time"):
        make_duration_check("--budget")(text)
