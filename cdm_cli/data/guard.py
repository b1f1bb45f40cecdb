"""The one function that opens a store, which may come from strangers.

A store is what `create` would have made: its root attributes say what it holds, and from them
its whole structure is laid out again and compared with the file, byte for byte. Nothing in the
file is followed or believed: no address, size or type is taken from it that was not computed
here as well. A link, a filter, a chunk table, external or virtual storage cannot pass, nor can
a flipped bit; none of it is even parsed. One difference means nothing: the mark of libhdf5 that
a file is open for writing, which stays where its program was killed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from cdm_cli.data import lock, pruned, schema
from cdm_cli.data.disk import hold_open
from cdm_cli.data.hdf5 import (
    ATTRIBUTES_LIMIT,
    SIGNATURE,
    Layout,
    read_attributes,
    unmark,
    was_left_open,
)
from cdm_cli.data.reading import Stamp, open_regular, read_at, read_stamp
from cdm_cli.data.schema import CONTENTS, Contents, Kind
from cdm_cli.errors import (
    BadInputError,
    CdmError,
    MismatchError,
    MissingError,
    StoppedError,
    UnsafeInputError,
)

SCHEMA_PREFIX = b"cdm-store/"
START = 2**16
DEEPEST = 32  # lists and objects within each other, in a provenance
LOOKS = {
    b"version https://git-lfs": "a Git LFS pointer", b"<!DOCTYPE": "a web page",
    b"<html": "a web page", b"PK\x03\x04": "a zip archive", b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image", b"\x93NUMPY": "a NumPy array", b"\x80": "a pickle",
}  # fmt: skip
OTHERS = "HDF5 of another program, in which cdm import and cdm prepare find images"


@dataclass(frozen=True)
class Opened:
    """A vetted store: an open file, what it contains, and where.

    stamp: that of the file before any of it was read.
    """

    fd: int
    path: Path
    kind: Kind
    contents: Contents
    classes: tuple[str, ...]
    provenance: Mapping[str, Any]
    layout: Layout
    stamp: Stamp


def open_vetted(path: Path, *, writable: bool = False) -> Opened:
    """Open a store and compare its structure with what cdm would have written.

    Raises MissingError; UnsafeInputError for what is no regular file, or has another structure
    than a store; BadInputError for a damaged store; MismatchError for one of another version;
    StoppedError for one that another program has open for writing; DiskError.
    """
    try:
        fd = open_regular(path, writable=writable)
    except MissingError as error:
        raise pruned.missing_error(path) if pruned.read_record(path) else error from None
    return vet(fd, path)


def vet(fd: int, path: Path) -> Opened:
    """Do for an open descriptor of a regular file what `open_vetted` does; close it on errors."""
    try:
        return _vet(fd, path)
    except BaseException:
        os.close(fd)
        raise


def describe_foreign(path: Path) -> str:
    """Say in words what a file is that no `cdm` wrote.

    "" for a store, whole or damaged, and for a file that is empty or all zeros.
    """
    with hold_open(open_regular(path)) as fd:
        start = read_at(fd, path, min(START, os.fstat(fd).st_size), 0)
    if SCHEMA_PREFIX in start or not start.strip(b"\0"):
        return ""
    return OTHERS if start.startswith(SIGNATURE) else _describe(start)


def _vet(fd: int, path: Path) -> Opened:
    before = read_stamp(fd)
    attributes = _read_attributes(fd, path)
    kind, contents, provenance = _parse_attributes(path, attributes)
    try:
        layout = schema.lay_out_store(attributes, contents)
    except ValueError as error:
        raise _unsafe_error(path, str(error)) from None
    if before.size != layout.size:
        wanted = f"a store of its contents has {layout.size}"
        raise _damage_error(path, f"it has {before.size} bytes, {wanted}")
    if _read_header(fd, path, len(layout.header)) != layout.header:
        raise _unsafe_error(path, "its structure is not the one that its contents have in a store")
    classes = _read_classes(fd, path, contents, layout)
    return Opened(fd, path, kind, contents, classes, provenance, layout, before)


def _read_header(fd: int, path: Path, size: int) -> bytes:
    """Read the first bytes of a file, the mark of one that was left open taken out.

    Raises StoppedError where the program that set it still has the file open.
    """
    header = read_at(fd, path, size, 0)
    if not was_left_open(header):
        return header
    if lock.is_locked(fd):
        raise StoppedError(
            f"{path} is open for writing in another program",
            kept="it was left as it is",
            next="close it there, then rerun",
        )
    return unmark(header)


def _read_attributes(fd: int, path: Path) -> dict[str, bytes]:
    """Read the root attributes, a small piece of the file first."""
    start = _read_header(fd, path, START)
    if not start.startswith(SIGNATURE):
        raise BadInputError(
            f"{path} is not a store: it is {_describe(start)}",
            kept="it was left as it is",
            next="cdm prepare or cdm sample make stores",
        )
    try:
        size = int.from_bytes(start[54:58], "little")
        if START < size + 58 <= ATTRIBUTES_LIMIT:
            start = _read_header(fd, path, size + 58)
        return read_attributes(start)
    except ValueError as error:
        raise _unsafe_error(path, str(error)) from None


def _describe(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "all zeros" if start else "empty"
    found = (what for sign, what in LOOKS.items() if start.lstrip().startswith(sign))
    return next(found, f"no HDF5 file, it begins with {start[:8]!r}")


def _unsafe_error(path: Path, why: str) -> CdmError:
    return UnsafeInputError(
        f"{path} is HDF5, but not a store as cdm writes it: {why}",
        kept="nothing in it was read or followed",
        next="take the store that cdm wrote, or cdm import the images",
    )


def _parse_attributes(
    path: Path, attributes: Mapping[str, bytes]
) -> tuple[Kind, Contents, dict[str, Any]]:
    found = attributes.get("schema", b"")
    if not found.startswith(SCHEMA_PREFIX):
        raise _unsafe_error(path, "it does not say schema = cdm-store")
    if found != schema.SCHEMA.encode():
        raise MismatchError(
            f"{path} is {found[:40].decode('latin-1')}, this cdm reads {schema.SCHEMA}",
            kept="it was left as it is",
            next="use the version of cdm that wrote it",
        )
    try:
        kind = cast(Kind, attributes["kind"].decode())
        contents = CONTENTS.validate_json(attributes["contents"])
        provenance = json.loads(schema.join_provenance(attributes))
    except (KeyError, ValueError, ValidationError, RecursionError) as error:
        raise _damage_error(
            path, f"its attributes cannot be read ({type(error).__name__})"
        ) from None
    if kind not in get_args(Kind) or not isinstance(provenance, dict):
        raise _damage_error(path, "its attributes are not those of a store")
    if _is_deeper(provenance, DEEPEST):
        raise _unsafe_error(path, f"its provenance is nested more than {DEEPEST} deep")
    return kind, contents, cast(dict[str, Any], provenance)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a value of JSON has lists and objects within each other, more than so many."""
    inside: Any = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and (
        not levels or any(_is_deeper(each, levels - 1) for each in inside)
    )


def _damage_error(path: Path, why: str) -> CdmError:
    return BadInputError(
        f"{path} is damaged: {why}", kept="it was left as it is", next="copy or make it again"
    )


def _read_classes(fd: int, path: Path, contents: Contents, layout: Layout) -> tuple[str, ...]:
    if not contents.classes:
        return ()
    size = contents.classes * contents.class_bytes
    packed = read_at(fd, path, size, layout.offsets["classes"])
    if hashlib.sha256(packed).hexdigest() != contents.class_sha256:
        raise _damage_error(path, "the class names do not match their digest")
    try:
        return schema.unpack_classes(packed, contents.class_bytes)
    except UnicodeDecodeError:
        raise _damage_error(path, "the class names are not UTF-8") from None
