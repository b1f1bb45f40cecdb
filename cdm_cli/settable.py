"""What `--set` may name: every setting with its type, default, range and meaning."""

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from textwrap import dedent
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from cdm_cli.config import ClassifierConfig, StageConfig
from cdm_cli.plans import Plan, TrainingConfig
from cdm_cli.sentences import range_in_words
from cdm_cli.settings import Later, Settings

TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}
ANY = "any"
EVERY = (
    ("", StageConfig, "diffusion"),
    ("", ClassifierConfig, "classifier"),
    ("training.", TrainingConfig, ANY),
)
SettingRows = list[dict[str, str]]


def list_settings_of(plan: Plan | None) -> SettingRows:
    """Return a row for each setting: of a plan with its values, without one of every kind.

    Of every kind, a row says which models have it.
    """
    if plan is None:
        return _list_all()
    return [*_list_rows(type(plan.stage), "", plan.stage),
            *_list_rows(TrainingConfig, "training.", plan.training)]  # fmt: skip


def _list_all() -> SettingRows:
    found: dict[str, dict[str, str]] = {}
    for prefix, model, of in EVERY:
        for row in _list_rows(model, prefix, None):
            name = row.pop("setting")
            shared = found.get(name)
            found[name] = {"setting": name, "of": of, **row} if shared is None else shared
            found[name]["of"] = of if shared is None else ANY
    return list(found.values())


def _list_rows(
    model: type[Settings], prefix: str, values: Settings | None
) -> Iterator[dict[str, str]]:
    for name, field in model.model_fields.items():
        if any(isinstance(mark, Later) and not mark.settable for mark in field.metadata):
            continue
        value = getattr(values, name) if values else field.default
        inner = _find_model(field.annotation)
        if inner is None:
            yield _row(f"{prefix}{name}", field, value, read_meanings(model))
        elif values is None or value is not None:
            yield from _list_rows(inner, f"{prefix}{name}.", value if values else None)


@cache
def read_meanings(model: type[Settings]) -> dict[str, str]:
    """Return the docstring below each field of a group of settings, by the field's name."""
    body = cast(ast.ClassDef, ast.parse(dedent(inspect.getsource(model))).body[0]).body
    said: dict[str, str] = {}
    for field, below in pairwise(body):
        text = getattr(getattr(below, "value", None), "value", None)
        if isinstance(field, ast.AnnAssign) and isinstance(text, str):
            said[ast.unparse(field.target)] = " ".join(text.split())
    return said


def _row(setting: str, field: FieldInfo, value: Any, meanings: Mapping[str, str]) -> dict[str, str]:
    default = "" if field.is_required() and value is field.default else _show(value)
    return {
        "setting": setting,
        "type": _type(field.annotation),
        "default": default,
        "range": range_in_words(field.metadata),
        "meaning": meanings.get(setting.rpartition(".")[2], ""),
    }


def _find_model(annotation: Any) -> type[Settings] | None:
    """Return the group of settings that a field holds, None for a single one."""
    kinds = [annotation, *get_args(annotation)]
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Settings)), None)


def _type(annotation: Any) -> str:
    """Return a type in words: "whole number or none", "list of numbers", "a, b or c"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return _join_words(list(map(str, inner)))
    if origin is tuple:
        return f"list: {_type(inner[0])}"
    if origin in (Union, UnionType):
        names = dict.fromkeys(_type(kind) for kind in inner if kind is not type(None))
        if "number" in names:
            names.pop("whole number", None)
        return _join_words([*names, *(["none"] if type(None) in inner else [])])
    return TYPES.get(annotation, "text")


def _join_words(words: Sequence[str]) -> str:
    return " or ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_show, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
