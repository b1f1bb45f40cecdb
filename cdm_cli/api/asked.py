"""From arguments of Python to the options of a command, checked as the command line is."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.sentences import find_fault_in

O = TypeVar("O")  # noqa: E741
PIXELS = "uint8 [N, H, W, C]"
WHOLE = 2.0**53  # above, a float no longer holds every whole number


def make_options(options: type[O], **values: Any) -> O:
    """Return options with these values. Raises UsageError naming the one that cannot be."""
    try:
        return TypeAdapter(options).validate_python(values)
    except ValidationError as error:
        fault = find_fault_in(error)
        raise UsageError(f"{fault.where} = {fault.value!r}: {fault.sentence}") from None


def require_loaded(name: str, given: object, kind: type[O], loader: str) -> O:
    """Return what is of the kind that `loader` returns; raise UsageError for anything else."""
    if not isinstance(given, kind):
        raise UsageError(
            f"{name} is of type {type(given).__name__}, expected what {loader} returns",
            next="help() in Python says what it takes",
        )
    return given


def require_array(name: str, given: object, expected: str) -> None:
    """Raise MismatchError for what is no array, as the path of a store or a list."""
    if not (hasattr(given, "dtype") and hasattr(given, "shape")):
        raise MismatchError(
            f"{name} are of type {type(given).__name__}, expected {expected}",
            next="cdm_cli.read gives such arrays",
        )


def require_pixels(name: str, given: NDArray[np.uint8]) -> None:
    """Raise MismatchError unless images are uint8 [N, H, W, C]."""
    require_array(name, given, PIXELS)
    if given.dtype != np.uint8 or given.ndim != 4 or not 1 <= given.shape[3] <= 4:
        raise MismatchError(
            f"{name} are {given.dtype} {list(given.shape)}, expected {PIXELS}",
            next="cdm_cli.read gives such arrays",
        )


def take_integers(name: str, values: object, num: int) -> NDArray[np.int64]:
    """Return num whole numbers as int64 [N]; 3.0 is one.

    Raises MismatchError for a fraction, a word, and another number of them.
    """
    found = np.asarray(cast("Any", values))
    if found.size and (found.dtype.kind not in "biuf" or not _are_whole(found)):
        raise MismatchError(f"{name} are no whole numbers", next="an array int64 [N]")
    if found.shape != (num,):
        shape = str(len(found)) if found.ndim == 1 else str(list(found.shape))
        raise MismatchError(f"{shape} {name} for {num} images", next="one for each")
    return found.astype(np.int64)


def _are_whole(found: NDArray[Any]) -> bool:
    if found.dtype.kind != "f":
        return True
    return bool((np.isfinite(found) & (found == np.floor(found)) & (abs(found) <= WHOLE)).all())


def list_numbers(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return one number or several, as `keep_s=250` and `keep_s=[250, 500]` give them."""
    return tuple(given) if np.iterable(given) else (given,)
