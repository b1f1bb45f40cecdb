"""Tensors in the files of other programs: safetensors, and pickled ones where allowed.

Nothing of a pickle is ever executed: `torch.load` runs with `weights_only=True`, on bytes
whose zip directory was checked first, and only when the user asked for it.
"""

import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.errors import BadInputError, MemoryFloorError, UnsafeInputError, quote

NOT_TAKEN = "nothing was taken from it"
WRAPPERS = ("module.", "_orig_mod.", "model.", "ema_model.", "net.")  # of DDP, compile, trainers
ZIP, LEGACY_PICKLE = b"PK\x03\x04", b"\x80"


def read_tensors(data: bytes, source: Path, *, from_pickle: bool) -> dict[str, Tensor]:
    """Return the tensors of a file's bytes, by name, as they are.

    Raises UnsafeInputError for a pickle unless from_pickle, and for anything in it but
    tensors; BadInputError for a damaged file.
    """
    if not data.startswith((ZIP, LEGACY_PICKLE)):
        try:
            return load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            first = _take_first_line(error)
            raise BadInputError(
                f"{source} is neither safetensors nor a file of torch.save: {first}",
                kept=NOT_TAKEN,
                next="download it again",
            ) from None
    if not from_pickle:
        raise UnsafeInputError(
            f"{source} is a pickle, a format that can hold code",
            kept="it was not unpickled",
            next=f"cdm import {quote(source)} --from-pickle reads its tensors and nothing else",
        )
    return _unpickle(data, source)


def read_file(path: Path) -> bytes:
    """Return the bytes of a checkpoint; raise MemoryFloorError where there is no room."""
    with open_regular_file(path.resolve()) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return file.read(size)
        except MemoryError:
            raise MemoryFloorError(
                f"{path} has {size / 2**30:.1f} GiB, more than there is memory", kept=NOT_TAKEN
            ) from None


def _unpickle(data: bytes, source: Path) -> dict[str, Tensor]:
    if data.startswith(ZIP):
        _check_zip(data, source)
    try:
        with warnings.catch_warnings(action="ignore"):
            values = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeInputError(
            f"{source} is more than a table of tensors, or damaged: {_describe_reason(error)}",
            kept="nothing in it was executed",
            next="ask its author for a safetensors file",
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise BadInputError(
            f"{source} is damaged: {_take_first_line(error)}",
            kept=NOT_TAKEN,
            next="download it again",
        ) from None
    values = _find_table(values, source)
    for name, tensor in values.items():
        _check_tensor(name, tensor, source)
    return {str(name): tensor for name, tensor in values.items()}


def _find_table(values: object, source: Path) -> dict[Any, Any]:
    """Return the table of tensors: the file's own, or the only one in it, as under "state_dict"."""
    if not isinstance(values, dict):
        raise BadInputError(
            f"{source} holds a {type(values).__name__}, expected a table of tensors",
            kept=NOT_TAKEN,
        )
    whole = cast(dict[Any, Any], values)
    inner = {str(name): table for name, table in whole.items() if _is_table(table)}
    if len(inner) > 1:
        raise BadInputError(
            f"{source} holds several tables of tensors: {', '.join(inner)}",
            kept=NOT_TAKEN,
            next="import a file with one of them: torch.save(torch.load(FILE)[NAME], NEW)",
        )
    return next(iter(inner.values())) if inner else whole


def _is_table(value: object) -> bool:
    table = cast(dict[Any, Any], value) if isinstance(value, dict) else {}
    return bool(table) and all(isinstance(tensor, Tensor) for tensor in table.values())


def remove_prefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return tensors without what wrappers put before every name, and that: "module.", or ""."""
    found, removed = dict(tensors), ""
    while found:
        first = next(iter(found)).partition(".")[0] + "."
        if first not in WRAPPERS or not all(name.startswith(first) for name in found):
            break
        found = {name.removeprefix(first): tensor for name, tensor in found.items()}
        removed += first
    return found, removed


def _check_zip(data: bytes, source: Path) -> None:
    """Refuse compressed or overlapping members (bombs) and TorchScript (programs)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadInputError(
            f"{source} is damaged: {_take_first_line(error)}",
            kept=NOT_TAKEN,
            next="download it again",
        ) from None
    if any(m.filename.endswith("constants.pkl") or "/code/" in m.filename for m in members):
        raise UnsafeInputError(
            f"{source} is a TorchScript program, expected tensors", kept="it was not loaded"
        )
    stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
    if not stored or sum(m.file_size for m in members) > len(data):
        raise UnsafeInputError(
            f"{source}: its members are compressed or overlap, which torch.save never does",
            kept="it was not unpickled",
        )


def _check_tensor(name: object, tensor: object, source: Path) -> None:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise BadInputError(
            f"{source}: {str(name)[:80]!r} is a {type(tensor).__name__}, expected a tensor",
            kept=NOT_TAKEN,
            next="import the file of the weights (model… or ema_…), not of the optimizer",
        )
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    size = tensor.numel() * tensor.element_size()
    if not dense or tensor.untyped_storage().nbytes() < size:
        raise UnsafeInputError(f"{source}: tensor {name} does not fill its place", kept=NOT_TAKEN)


def _describe_reason(error: pickle.UnpicklingError) -> str:
    """Return what the restricted unpickler met, without its advice to switch it off."""
    names = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {names[1][:100]}" if names else "its pickle says other things"


def _take_first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
