"""Images inside .zip and .tar files, read in place: nothing is ever extracted.

An archive is refused as a whole when it could make us read or write elsewhere, or too
much: paths that leave it, a name twice, links and devices, members that overlap or lie
outside the file, encryption, methods other than stored and deflate, or more than a
thousandfold compression. A member whose bytes are merely damaged is one bad image.
"""

import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.disk import hold_open
from cdm_cli.data.images import BadImageError
from cdm_cli.data.listing import (
    DATASET_JSON,
    MAX_BESIDE_BYTES,
    MAX_FILE_BYTES,
    MAX_TABLE_BYTES,
    digest_listing,
    read_error,
    sort_names,
)
from cdm_cli.data.skips import Skips, make_printable_name
from cdm_cli.errors import BadInputError, UnsafeInputError

MAX_RATIO = 1000  # deflate itself ends at 1032
KEPT = "nothing of it was used"
LOCAL_HEADER = 30  # bytes of a zip's local header before name and extra field

PLAIN, STORED, DEFLATED = range(3)


class MemberSpan(NamedTuple):
    """Where a member lies: bytes [start, end) hold it and, in a zip, its local header.

    stored: the bytes that it takes there; size: once it is unpacked. crc: its CRC-32, 0 in a tar,
    which has none. how: PLAIN (in a tar, without a local header), STORED or DEFLATED.
    """

    start: int
    end: int
    stored: int
    size: int
    crc: int
    how: int


class Member(NamedTuple):
    """One file of an archive."""

    name: str
    span: MemberSpan


class ArchiveSource:
    """The images of an archive. spans: where they lie, int64 [N, 6], the fields of `MemberSpan`."""

    labels: NDArray[np.int64] | None = None

    def __init__(
        self,
        name: str,
        path: Path,
        names: list[str],
        spans: NDArray[np.int64],
        dataset_json: bytes | None = None,
        beside: Mapping[str, Member] | None = None,
    ) -> None:
        self.name, self.path, self.names, self.spans = name, path, names, spans
        self.dataset_json, self.beside = dataset_json, beside or {}

    def take(self, rows: Sequence[int]) -> "ArchiveSource":
        """Return a source of these images, in this order."""
        names = [self.names[i] for i in rows]
        return ArchiveSource(self.name, self.path, names, self.spans[list(rows)])

    def read(self, i: int) -> bytes:
        """Return the bytes of image i. Raises what `read_member` raises."""
        member = Member(self.names[i], MemberSpan(*self.spans[i].tolist()))
        return read_member(self.path, member)

    def read_beside(self, name: str) -> bytes:
        """Return the bytes of a file beside an image. Raises the errors of `read`."""
        return read_member(self.path, self.beside[name], MAX_BESIDE_BYTES)

    def digest(self) -> str:
        """Return the sha256 over names, sizes and, in a zip, checksums."""
        return digest_listing(self.names, self.spans[:, 3], self.spans[:, 4])


def open_archive(name: str, path: Path, members: Iterable[Member], skips: Skips) -> ArchiveSource:
    """Choose the images among the members, sorted by name; what is passed over goes to skips.

    dataset.json at the root is read. Raises what `read_member` raises, for that one.
    """
    found = {member.name: member for member in sorted(members)}
    names = sort_names(found, skips)
    table = found.get(DATASET_JSON)
    dataset_json = table and read_member(path, table, MAX_TABLE_BYTES)
    spans = np.array([found[image].span for image in names.images], np.int64)
    spans = spans.reshape(-1, len(MemberSpan._fields))
    labels = {side: found[side] for side in names.beside}
    return ArchiveSource(name, path, names.images, spans, dataset_json, labels)


def read_member(path: Path, member: Member, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read one member.

    Raises BadImageError where it is larger than `limit`, or its bytes do not fit its size or
    checksum; UnsafeInputError, BadInputError and DiskError for the archive.
    """
    span = member.span
    if span.size > limit:
        raise BadImageError(f"a file of more than {limit >> 20} MiB")
    with open_for_reading(path) as file:
        if span.how == PLAIN:
            return pread(path, file, span.start, span.stored)
        data = pread(path, file, find_data(path, file, member), span.stored)
    if span.how == DEFLATED:
        data = _inflate(data, span.size)
    if len(data) != span.size or zlib.crc32(data) != span.crc:
        raise BadImageError("its checksum in the zip is wrong")
    return data


def find_data(path: Path, file: int, member: Member) -> int:
    """Return where a zip member's data begin, which its local header tells.

    Raises BadImageError where that header and the directory of the zip tell different methods,
    UnsafeInputError where the data would reach beyond the member.
    """
    span = member.span
    head = pread(path, file, span.start, LOCAL_HEADER)
    flags, method, name_length, extra_length = (
        int.from_bytes(head[at : at + 2], "little") for at in (6, 8, 26, 28)
    )
    if head[:4] != b"PK\x03\x04" or method != (8 if span.how == DEFLATED else 0):
        raise BadImageError("its two headers in the zip differ")
    offset = span.start + LOCAL_HEADER + name_length + extra_length
    if flags & 0x41 or offset + span.stored > span.end:
        raise unsafe_error(path, member.name, "overlaps another member or is encrypted")
    return offset


def _inflate(data: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise BadImageError("its deflated bytes are damaged") from error
    return plain if inflater.eof else b""


def open_for_reading(path: Path) -> AbstractContextManager[int]:
    """Open a file for `pread`, for as long as entered. Raises DiskError."""
    try:
        return hold_open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise read_error(path, error) from error


def pread(path: Path, file: int, offset: int, length: int) -> bytes:
    """Read exactly so many bytes. Raises DiskError, BadInputError where the file ends before."""
    data = b""
    while len(data) < length:
        try:
            part = os.pread(file, length - len(data), offset + len(data))
        except OSError as error:
            raise read_error(path, error) from error
        if not part:
            raise BadInputError(f"{path} is cut: it ends inside a member", kept=KEPT)
        data += part
    return data


def clean_name(path: Path, name: str) -> str:
    """Return a member's name without "." parts. Raises UnsafeInputError if it leads outside."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or re.match("[A-Za-z]:", name):
        raise unsafe_error(path, name, "points outside the archive")
    return "/".join(parts)


def add_once(path: Path, members: dict[str, Member], member: Member) -> None:
    """Add a member. Raises UnsafeInputError where another one has its name."""
    if member.name in members:
        raise unsafe_error(path, member.name, "appears twice")
    members[member.name] = member


def limit_size(stored: int) -> int:
    """Return the largest size to which so many compressed bytes may be unpacked."""
    return MAX_RATIO * stored + 4096


def unsafe_error(path: Path, name: str, fault: str) -> UnsafeInputError:
    """Return the UnsafeInputError that refuses an archive and names the member at fault."""
    return UnsafeInputError(
        f"{path} is refused: its member '{make_printable_name(name)}' {fault}", kept=KEPT
    )
