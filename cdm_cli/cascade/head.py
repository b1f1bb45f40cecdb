"""The header of a safetensors file, read and checked without torch and without its tensors."""

import json
import os
from io import BufferedReader
from pathlib import Path
from typing import Any

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.errors import BadInputError, UnsafeInputError, quote

HEADER_LIMIT = 4 * 2**20  # JSON in memory is up to thirty times as large
PICKLES = (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")  # what torch.save writes
NOT_READ = "nothing was read from it"


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file (step, score); its tensors are not read."""
    with open_regular_file(path) as file:
        return parse_header(read_head(file, path)[8:], path)[1]


def read_head(file: BufferedReader, path: Path) -> bytearray:
    """Read the 8 bytes of the header's length and the header itself; return both.

    Raises UnsafeInputError for a pickle, BadInputError for a length that no header has.
    """
    head = read_exactly(file, 8, path)
    size = int.from_bytes(head, "little")
    if size > HEADER_LIMIT and bytes(head[:2]) in PICKLES:
        raise UnsafeInputError(
            f"{path} looks like a pickle, which could run code; only safetensors are read",
            kept=NOT_READ,
            next=f"cdm import {quote(path)} --from-pickle",
        )
    if not 2 <= size <= HEADER_LIMIT:
        raise damage_error(path, f"its header claims {size} bytes")
    return head + read_exactly(file, size, path)


def damage_error(path: Path, what: str) -> BadInputError:
    """Return the error for a file whose bytes cannot be those that were written."""
    return BadInputError(f"{path} is damaged: {what}", kept=NOT_READ, next="restore the file")


def read_exactly(file: BufferedReader, size: int, path: Path) -> bytearray:
    """Read size bytes. Raises BadInputError, before memory is allocated, if the file has fewer."""
    here, length = file.tell(), os.fstat(file.fileno()).st_size
    if length - here < size:
        raise damage_error(path, f"{length} bytes long, at least {here + size} expected")
    data = bytearray(size)
    if file.readinto(data) != size:
        raise damage_error(path, "it became shorter while it was read")
    return data


def parse_header(header: bytearray, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the entries of the tensors by name, and the metadata. Raises BadInputError."""
    try:
        values = json.loads(header)
    except (ValueError, RecursionError):
        raise damage_error(path, "its header is not JSON") from None
    if not isinstance(values, dict):
        raise damage_error(path, "its header is not a table of tensors")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damage_error(path, "its metadata are not strings")
    return values, metadata
