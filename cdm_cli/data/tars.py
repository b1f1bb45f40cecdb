"""The list of a tar's members (POSIX ustar and pax, GNU long names), and what a .gz holds.

Read here and not by `tarfile`, whose parser can be made to loop on negative sizes and to
take quadratic time on long headers.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from cdm_cli.data.archives import (
    KEPT,
    PLAIN,
    Member,
    MemberSpan,
    add_once,
    clean_name,
    limit_size,
    open_for_reading,
    pread,
    unsafe_error,
)
from cdm_cli.data.listing import read_error
from cdm_cli.errors import BadInputError, UnsafeInputError

BLOCK = 512
MAX_EXTENDED = 2**20  # bytes of one pax or long-name header
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_PAX, _PAX_GLOBAL, _LONG_NAME = b"x", b"g", b"L"
_EXTENDED = (_PAX, _PAX_GLOBAL, _LONG_NAME)


def list_tar_members(path: Path) -> list[Member]:
    """List the files of a tar after checking all of it.

    Raises UnsafeInputError for what `archives` refuses, BadInputError for a damaged tar.
    """
    members: dict[str, Member] = {}
    told: dict[str, str] = {}  # what extended headers say about the next member
    with open_for_reading(path) as file:
        total, offset = os.fstat(file).st_size, 0
        while (head := pread(path, file, offset, BLOCK)).strip(b"\0"):
            name, size, kind = _read_header(path, head)
            if kind not in _EXTENDED:
                name, size = _overrule(path, told, name, size)
            start = offset + BLOCK
            if start + size > total:
                raise BadInputError(f"{path} is cut: it ends inside a member", kept=KEPT)
            if kind in _EXTENDED:
                told |= _extend(path, kind, _read_body(path, file, start, size))
            else:
                span = MemberSpan(start, start + size, size, size, 0, PLAIN)
                _add(path, members, Member(name, span), kind)
                told = {}
            offset = start + -(-size // BLOCK) * BLOCK
    return list(members.values())


def _add(path: Path, members: dict[str, Member], member: Member, kind: bytes) -> None:
    name = clean_name(path, member.name)
    if kind in _FILES:
        add_once(path, members, Member(name, member.span))
    elif kind != _FOLDER:
        raise unsafe_error(path, member.name, "is a link, a device or a sparse file")


def _read_header(path: Path, head: bytes) -> tuple[str, int, bytes]:
    """Return name, size and kind of a member's header block."""
    told = _parse_number(path, head[148:156])
    if told != sum(head) - sum(head[148:156]) + 8 * ord(" "):
        raise BadInputError(
            f"{path} is a damaged tar: the checksum of a header is wrong", kept=KEPT
        )
    name, prefix = head[:100].split(b"\0")[0], head[345:500].split(b"\0")[0]
    if prefix and head[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return _decode(name), _parse_number(path, head[124:136]), head[156:157]


def _parse_number(path: Path, field: bytes, base: int = 8) -> int:
    """Read digits, or GNU's base 256 for sizes of 8 GiB and more; never less than 0."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    try:
        if not digits.isdigit():
            raise ValueError
        return int(digits, base)
    except ValueError:
        raise BadInputError(f"{path} is a damaged tar: {field!r} is no number", kept=KEPT) from None


def _overrule(path: Path, told: dict[str, str], name: str, size: int) -> tuple[str, int]:
    """Return name and size of a member: those that extended headers tell, where they tell any."""
    if any(key.startswith("GNU.sparse") for key in told):
        raise unsafe_error(path, told.get("path", name), "is a link, a device or a sparse file")
    if "size" in told:
        size = _parse_number(path, told["size"].encode("ascii", "replace"), base=10)
    return told.get("path", name), size


def _read_body(path: Path, file: int, start: int, size: int) -> bytes:
    if size > MAX_EXTENDED:
        raise UnsafeInputError(f"{path} is refused: a header of {size} bytes", kept=KEPT)
    return pread(path, file, start, size)


def _extend(path: Path, kind: bytes, body: bytes) -> dict[str, str]:
    """Return what a header tells about the next member; a global one tells nothing we use."""
    if kind == _LONG_NAME:
        return {"path": _decode(body.rstrip(b"\0"))}
    return _parse_pax(path, body) if kind == _PAX else {}


def _parse_pax(path: Path, body: bytes) -> dict[str, str]:
    """Parse records of the form "length key=value\\n", length counting the whole record."""
    records: dict[str, str] = {}
    while body:
        digits, _, _ = body[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, found, value = body[len(digits) + 1 : length - 1].partition(b"=")
        if not found or not len(digits) < length <= len(body):
            raise BadInputError(f"{path} is a damaged tar: a pax header ends early", kept=KEPT)
        records[_decode(key)] = _decode(value)
        body = body[length:]
    return records


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def gunzip(path: Path) -> Iterator[bytes]:
    """Yield the contents of a .gz, piece by piece.

    Raises BadInputError (damaged), UnsafeInputError (a bomb), DiskError.
    """
    budget = limit_size(path.stat().st_size)
    try:
        with gzip.open(path) as packed:
            while part := packed.read(2**20):
                budget -= len(part)
                if budget < 0:
                    raise UnsafeInputError(f"{path} is refused: it expands without end", kept=KEPT)
                yield part
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInputError(f"{path} is a damaged .gz ({error})", kept=KEPT) from error
    except OSError as error:
        raise read_error(path, error) from error
