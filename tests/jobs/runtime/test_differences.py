"""Mirrors cdm_cli/jobs/runtime/differences.py."""

from cdm_cli.commands.table import TABLE
from cdm_cli.jobs.runtime.differences import (
    TYPED,
    describe_differences,
    find_differences,
    find_first_difference,
)
from cdm_cli.options.flag import list_flags


def test_a_field_that_one_side_lacks_is_a_difference():
    assert str(find_first_difference({}, {"a": None})) == "a was absent, is none"
    assert find_first_difference({"a": (1, 2)}, {"a": [1, 2]}) is None
    implied = ("alpha_bar", "between", "process", "times")  # nobody types them
    found = find_differences({}, dict.fromkeys(("num", "keep_s", *implied)))
    assert [each.where for each in found] == ["keep_s", "num", *implied]
    assert (
        str(find_first_difference({"keep_s": [251]}, {"keep_s": []})) == "--keep-s was 251, is none"
    )
    assert (
        str(find_first_difference({"keep_s": [1, 5]}, {"keep_s": [1, 7]}))
        == "--keep-s was 1,5, is 1,7"
    )
    there, here = {"a": {"b": 1, "c": [1, 2, 3]}}, {"a": {"b": 2, "c": [1, 5, 6]}}
    assert list(map(str, find_differences(there, here))) == [
        "a.b was 1, is 2",
        "a.c[1] was 2, is 5",
    ]


def test_a_refusal_names_four_differences_and_counts_the_others():
    assert describe_differences(list("abcdef")) == "a; b; c; d; and 2 more"


def test_what_a_refusal_calls_a_field_can_be_typed():
    flags = {name.partition("/")[0] for row in TABLE for item in list_flags(row.options)
             for name in item.names if not item.flag.argument}  # fmt: skip
    assert set(TYPED.values()) <= flags | {"SRC", "STORE"}
    assert {"--keep-s", "--clip", "--restart-from"} <= set(TYPED.values())
    assert "weights" not in TYPED  # a digest in identities
