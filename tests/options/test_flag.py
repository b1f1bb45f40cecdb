"""Mirrors cdm_cli/options/flag.py: which fields have flags, in which order, under which name."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from cdm_cli.commands.table import TABLE
from cdm_cli.options.flag import OUTPUT, Flag, Reflag, Without, list_flags
from tests.asking import as_typed

OF_SAMPLING = {
    "sampler": "ddim", "steps": 3, "variance": "large", "schedule": "some.json",
    "restart_from": 20, "clip": False, "weights": "best", "seed": 1, "note": "words",
}  # fmt: skip
"""Another value than the default of every flag of Sampling."""


@dataclass(frozen=True)
class Inner:
    c: Annotated[int, Flag("c.")] = 3


@dataclass(frozen=True)
class Group:
    a: Annotated[int, Flag("a of the group.")] = 1
    b: Annotated[str | None, Flag("b.", "B")] = None
    hidden: Annotated[int, Flag("Hidden.")] = 0
    words: Annotated[str, Flag("Hidden with its heading.", group=OUTPUT)] = ""
    inner: Inner = Inner()


@dataclass(frozen=True)
class Asked:
    a_b: Annotated[int, Flag("a_b.")]
    group: Annotated[Group, Without("hidden", OUTPUT), Reflag("b", Flag("Another b.", "N"))] = (
        Group()
    )
    many: Annotated[tuple[int, ...], Flag("Many.")] = ()
    again: Annotated[tuple[int, ...], Flag("Again.", names=("--one", "-1"), repeat=True)] = ()
    unflagged: int = 0


@dataclass(frozen=True)
class Hiding:
    a: Annotated[int, Flag("a of its own.")] = 7
    group: Group = Group()


def test_fields_of_groups_stand_in_place_and_groups_within_groups_last():
    assert [item.path for item in list_flags(Asked)] == [
        ("a_b",), ("group", "a"), ("group", "b"), ("many",), ("again",), ("group", "inner", "c"),
    ]  # fmt: skip


def test_a_group_may_say_another_thing_of_a_field():
    found = {item.name: item for item in list_flags(Asked)}
    assert found["b"].flag == Flag("Another b.", "N")
    assert found["b"].default is None


def test_a_field_hides_one_of_its_name_in_a_group():
    assert [item.path for item in list_flags(Hiding) if item.name == "a"] == [("a",)]


def test_names_are_the_field_with_dashes_unless_said():
    found = {item.name: item for item in list_flags(Asked)}
    assert found["a_b"].names == ("--a-b",)
    assert found["again"].names == ("--one", "-1")
    assert (found["many"].listed, found["again"].listed) == (True, False)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        pytest.param(command.options, item.name, id=f"{command.name} {item.names[0]}")
        for command in TABLE
        for item in list_flags(command.options)
        if item.path[0] == "sampling"
    ],
)
def test_no_command_lists_a_flag_of_sampling_that_it_refuses_whatever_else_is_asked(options, name):
    as_typed(options, sampling={name: OF_SAMPLING[name]})
