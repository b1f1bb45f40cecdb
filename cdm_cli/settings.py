"""The base of every setting that is kept in a file: frozen, checked, an unknown field an error."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from cdm_cli.errors import UsageError
from cdm_cli.sentences import find_fault_in


@dataclass(frozen=True)
class Later:
    """Marks a field that was added to a model after files of it had been written.

    At its default such a field is not written: what is written of a stage tells stages apart,
    and those that existed stay what they were. So its default, which is what a file without
    it means, must never change. settable: `--set` may name it.
    """

    settable: bool = True


class Settings(BaseModel):
    """Base of every setting: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_later_defaults(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name, field in type(self).model_fields.items():
            later = next((mark for mark in field.metadata if isinstance(mark, Later)), None)
            if later is None or getattr(self, name) != field.default:
                continue
            if not (later.settable and info.context is SETTABLE):
                values.pop(name, None)
        return values


SETTABLE = {"fields": "settable"}  # the context of a dump of all that `--set` may name
S = TypeVar("S", bound=Settings)


def validate(model: type[S], values: Mapping[str, Any], *, source: str) -> S:
    """Build a Settings model, or raise UsageError naming source and the first wrong field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fault = find_fault_in(error)
        where = fault.where.removeprefix("stage.").removeprefix("stage")
        said = "" if isinstance(fault.value, dict) else f" {_as_typed(fault.value)}"
        told = f"{where}{said}: {fault.sentence}" if where else fault.sentence
        there = "cdm train --list-settings, which has its range"
        advice = there if source == "--set" else "correct it, or see --help"
        raise UsageError(f"{source} {told}", next=advice) from None


def _as_typed(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
