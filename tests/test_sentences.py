"""Mirrors cdm_cli/sentences.py: every fault that pydantic can find in our models has our words."""

import importlib
import json
import pkgutil
import re
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

import cdm_cli
from cdm_cli import sentences
from cdm_cli.cascade.foreign.openai_flags import Flags
from cdm_cli.commands.table import TABLE
from cdm_cli.config import ScheduleConfig
from cdm_cli.errors import UsageError
from cdm_cli.options.sampling import SampleOptions
from cdm_cli.overrides import with_overrides
from cdm_cli.plans import Plan, StageFile
from cdm_cli.presets import PRESETS, plan_of_preset, preset
from cdm_cli.sentences import find_fault_in, find_near
from cdm_cli.settings import Settings

TREE = pkgutil.walk_packages(cdm_cli.__path__, "cdm_cli.")
NAMES = [found.name for found in TREE if "__main__" not in found.name]
BAD = (
    None, "x", "", -1, 0, 10**30, 1.5, float("nan"), float("inf"), True, [], ["x"], [1, "x"],
    {}, {"x": 1}, b"\xff", object(), "9" * 5000, [1] * 40, {"kind": "sr"}, {"kind": "x"},
)  # fmt: skip
WORDS = re.compile(r"Input should|Value error|Field required|Extra inputs|valid (integer|number)")


def models():
    """Every settings model of the package, and the options of every command."""
    yield from (command.options for command in TABLE)
    for name in NAMES:
        importlib.import_module(name)
    waiting = [Settings]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__module__.startswith("cdm_cli") and model is not Settings:
            yield model


def faults(model):
    """What is found in a model or in options with one wrong field, from Python and from JSON."""
    known = TypeAdapter(model)
    for value in (*BAD, {"no_such_field": 1}):
        yield from attempt(lambda value=value: known.validate_python(value))
    for name in get_type_hints(model):
        for value in BAD:
            yield from attempt(lambda name=name, value=value: known.validate_python({name: value}))
            try:
                text = json.dumps({name: value})
            except (TypeError, ValueError):
                continue
            yield from attempt(lambda text=text: known.validate_json(text))
    yield from attempt(lambda: known.validate_json("{"))


def attempt(action):
    try:
        action()
    except ValidationError as error:
        yield error
    except UsageError:
        pass


def test_no_fault_of_any_of_our_models_has_words_of_pydantic():
    kinds = set()
    for model in models():
        for error in faults(model):
            kinds |= {fault["type"] for fault in error.errors()}
            said = find_fault_in(error).sentence
            assert not WORDS.search(said)
            assert said != error.errors()[0]["msg"]
            assert "{" not in said
            assert said != sentences.OTHERWISE, error
    assert kinds <= set(sentences.SENTENCES)
    assert len(kinds) > 15


def test_a_place_is_written_as_a_user_writes_it():
    with pytest.raises(UsageError, match=r"--set model\.channel_mult\.1 -1: expected more than 0"):
        plan_of_preset("tiny-base8", ("model.channel_mult=1,-1",))
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate(PRESETS["tiny-sr8-16"].model_dump() | {"training": 3})
    assert find_fault_in(caught.value).where == "training"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr=1", "training.lr"), ("dropuot=1", "model.dropout"),
        ("modle.dropout=1", "model.dropout"),
        ("training.step=3", "training.steps"), ("T=4", "schedule.T"),
    ],
)  # fmt: skip
def test_a_mistyped_setting_names_the_whole_path_of_the_one_that_was_meant(typed, meant):
    with pytest.raises(UsageError, match=rf"did you mean .*{re.escape(meant)}"):
        with_overrides(preset("tiny-base8"), (typed,))


def test_a_value_out_of_range_is_sent_to_the_list_that_has_the_range():
    with pytest.raises(UsageError) as caught:
        with_overrides(preset("tiny-base8"), ("model.dropout=2",))
    assert caught.value.what == "--set model.dropout 2: expected less than 1.0"
    assert caught.value.next == "cdm train --list-settings, which has its range"


def test_a_setting_of_another_kind_of_stage_is_told():
    for field in ("s_max", "s_min"):
        with pytest.raises(UsageError) as caught:
            plan_of_preset("tiny-base8", (f"conditioning.{field}=3",))
        assert caught.value.what == f"--set conditioning.{field}: a base stage has no conditioning"
        assert "cdm train base" not in caught.value.next  # it may be called otherwise


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("cifar-base61", "cifar-base16"), ("Imagenet-base32", "imagenet-base32"),
     ("tiny-base", "tiny-base8"), ("classifer", "classifier")],
)  # fmt: skip
def test_a_mistyped_preset_names_the_near_one(typed, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}?"):
        preset(typed)


def test_a_value_of_few_names_the_near_one():
    with pytest.raises(UsageError, match="one of cosine, linear, list; did you mean cosine"):
        plan_of_preset("tiny-base8", ("schedule.kind=cosin",))
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(SampleOptions).validate_python({"sampling": {"sampler": "dimm"}})
    assert find_fault_in(caught.value).sentence.endswith("did you mean ddim?")


def test_far_words_have_no_near_name():
    assert find_near("zebra", PRESETS) == []
    assert find_near("GPU", ["cpu", "cuda"]) == ["cuda"]


def test_json_that_is_none_is_told():
    with pytest.raises(ValidationError) as caught:
        StageFile.model_validate_json("{")
    assert find_fault_in(caught.value).sentence.startswith("is no JSON: ")


def test_flags_of_others_and_values_of_ours_are_told_alike():
    with pytest.raises(ValidationError) as caught:
        Flags.model_validate({"image_size": "big"})
    assert find_fault_in(caught.value).sentence == "expected a whole number"
    with pytest.raises(ValidationError) as caught:
        ScheduleConfig.model_validate({"T": 0})
    assert find_fault_in(caught.value).sentence == "expected 1 or more"
