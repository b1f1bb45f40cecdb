"""Options of commands as a command line gives them: checked, and text turned into their types."""

import subprocess
from typing import Any, TypeVar

from pydantic import TypeAdapter

O = TypeVar("O")  # noqa: E741


def as_typed(options: type[O], **values: Any) -> O:
    """Return options with these values, as if they had been typed."""
    return TypeAdapter(options).validate_python(values)


def type_advice(error: Any) -> None:
    """Type the command with which an error's advice begins, before its comma."""
    subprocess.run(error.next.partition(", ")[0], shell=True, check=True)
