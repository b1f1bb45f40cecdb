"""From arguments of Python to the options of a command, checked as the command line is."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cdm_cli.errors import UsageError
from cdm_cli.sentences import find_fault_in

O = TypeVar("O")  # noqa: E741


def make_options(options: type[O], **values: Any) -> O:
    """Return options with these values. Raises UsageError naming the one that cannot be."""
    try:
        return TypeAdapter(options).validate_python(values)
    except ValidationError as error:
        fault = find_fault_in(error)
        raise UsageError(f"{fault.where} = {fault.value!r}: {fault.sentence}") from None
