"""Images in an ADM .npz: arr_0 uint8 [N, H, W, C] or [N, H, W], and arr_1 labels [N] if any.

The arrays are read in place, row by row; a compressed arr_0 is unpacked next to the
output first. No pickle is ever read: only the two dtypes that count are accepted.
"""

import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cdm_cli.data.archives import (
    DEFLATED,
    KEPT,
    Member,
    find_data,
    open_for_reading,
    pread,
    read_member,
)
from cdm_cli.data.images import MAX_PIXELS, U8, BadImageError
from cdm_cli.data.listing import digest_listing
from cdm_cli.data.spool import write_spool
from cdm_cli.errors import BadInputError
from cdm_cli.names import MOST_CLASSES
from cdm_cli.units import format_count

IMAGES, LABELS = "arr_0.npy", "arr_1.npy"
MAX_LABEL_BYTES = 2**27
_HEAD = 2**14
_STEP = 2**20


class ArraySource:
    """Rows of one array of uint8 images, uncompressed at an offset of a file.

    shape: of an image, (H, W, C). rows: int64 [N], which of the array. labels: int64 [N]. crc: of
    the array. called: what the arrays of images and labels are called.
    """

    dataset_json: bytes | None = None
    beside: Collection[str] = ()

    def __init__(
        self,
        name: str,
        path: Path,
        offset: int,
        shape: tuple[int, int, int],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
        crc: int,
        called: tuple[str, str] = ("arr_0", "arr_1"),
    ) -> None:
        self.name, self.path, self.offset, self.shape = name, path, offset, shape
        self.rows, self.labels, self.crc, self.called = rows, labels, crc, called
        self.labelled_by = called[1]
        self.names = [f"{called[0]}[{row}]" for row in rows.tolist()]

    def take(self, rows: Sequence[int]) -> "ArraySource":
        """Return a source of these images, in this order."""
        keep = np.asarray(rows, np.int64)
        labels = None if self.labels is None else self.labels[keep]
        place = (self.name, self.path, self.offset, self.shape)
        return ArraySource(*place, self.rows[keep], labels, self.crc, self.called)

    def read(self, i: int) -> U8:
        """Return the pixels [H, W, C] of image i. Raises BadInputError, DiskError."""
        size = int(np.prod(self.shape))
        with open_for_reading(self.path) as file:
            data = pread(self.path, file, self.offset + int(self.rows[i]) * size, size)
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    def read_beside(self, name: str) -> bytes:
        """Raise KeyError: there is nothing beside an array."""
        raise KeyError(name)

    def digest(self) -> str:
        """Return the sha256 over shape, checksum, rows and labels (0 where there are none)."""
        labels = self.rows * 0 if self.labels is None else self.labels
        return digest_listing([], np.array([*self.shape, self.crc]), self.rows, labels)


def open_arrays(name: str, path: Path, members: Sequence[Member], spool: Path) -> ArraySource:
    """Open the arrays of an .npz, a compressed arr_0 by way of spool.

    Raises BadInputError, UnsafeInputError, DiskError.
    """
    table = {member.name: member for member in members}
    if IMAGES not in table:
        found = ", ".join(sorted(table)[:5]).replace(".npy", "") or "nothing"
        raise BadInputError(f"{path} holds {found}; images are expected in arr_0", kept=KEPT)
    member = table[IMAGES]
    try:
        where, offset = _find_in_place(path, member, spool)
        with open_for_reading(where) as file:
            head = pread(where, file, offset, min(_HEAD, member.span.size))
        shape, dtype, length = _read_npy_header(head)
        if dtype != np.uint8:
            raise BadImageError(f"arr_0 is {dtype}, not uint8")
        N, *one = _check_image_shape(shape, member.span.size - length)
        labels = _read_labels(path, table[LABELS], N) if LABELS in table else None
    except BadImageError as error:
        raise BadInputError(f"{path} cannot be used: {error}", kept=KEPT) from error
    H, W, C = one
    rows = np.arange(N)
    return ArraySource(name, where, offset + length, (H, W, C), rows, labels, member.span.crc)


def _find_in_place(path: Path, member: Member, spool: Path) -> tuple[Path, int]:
    """Return a file and offset where a member lies uncompressed, its checksum compared."""
    span = member.span
    with open_for_reading(path) as file:
        where, offset = path, find_data(path, file, member)
        if span.how == DEFLATED:
            where, offset = write_spool(_inflate(path, file, offset, span.stored), spool), 0
    with open_for_reading(where) as file:
        long_enough = os.fstat(file).st_size >= offset + span.size
        if not long_enough or _compute_crc(_read_parts(where, file, offset, span.size)) != span.crc:
            raise BadImageError("the checksum of arr_0 is wrong")
    return where, offset


def _read_parts(path: Path, file: int, offset: int, length: int) -> Iterator[bytes]:
    for at in range(0, length, _STEP):
        yield pread(path, file, offset + at, min(_STEP, length - at))


def _inflate(path: Path, file: int, offset: int, stored: int) -> Iterator[bytes]:
    """Yield what a deflated member holds: at most 1032 times its bytes, so never without end."""
    inflater = zlib.decompressobj(-15)
    try:
        for part in _read_parts(path, file, offset, stored):
            while part:
                yield inflater.decompress(part, _STEP)
                part = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise BadImageError("the deflated bytes of arr_0 are damaged") from error


def _compute_crc(parts: Iterator[bytes]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _read_npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and the header's own length. Raises BadImageError."""
    stream = BytesIO(data)
    try:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[
            npy.read_magic(stream)
        ]
        shape, turned, dtype = read(stream)
    except Exception as error:  # the parser meets any bytes: Value, Key, Syntax, Unicode, ...
        raise BadImageError("an array without a readable header") from error
    if turned:
        raise BadImageError("an array in Fortran order")
    return shape, dtype, stream.tell()


def _check_image_shape(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Return N, H, W, C of arr_0. Raises BadImageError."""
    N, H, W, C = shape if len(shape) == 4 else (*shape, 1) if len(shape) == 3 else (0, 0, 0, 0)
    if not (1 <= C <= 4 and H >= 1 and W >= 1 and H * W <= MAX_PIXELS):
        raise BadImageError(f"arr_0 has the shape {shape}, not [N, H, W, C] with C from 1 to 4")
    if N * H * W * C != size:
        raise BadImageError(f"arr_0 holds {size} bytes, not the {N * H * W * C} of {shape}")
    return N, H, W, C


def _read_labels(path: Path, member: Member, N: int) -> NDArray[np.int64]:
    """Read arr_1. Raises BadImageError naming the first label that cannot be one."""
    data = read_member(path, member, MAX_LABEL_BYTES)
    shape, dtype, length = _read_npy_header(data)
    if dtype.kind not in "iu" or shape != (N,) or len(data) != length + N * dtype.itemsize:
        raise BadImageError(
            f"arr_1 is {dtype} {list(shape)}, not {format_count(N, 'whole number')}"
        )
    return require_classes(np.frombuffer(data, dtype, offset=length), "arr_1")


def require_classes(y: NDArray[Any], called: str) -> NDArray[np.int64]:
    """Return labels [N] of whole numbers as int64. Raises BadImageError where one is no class."""
    wrong = (y < 0) | (y >= MOST_CLASSES)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BadImageError(f"{called}[{i}] is {y[i]}, no class from 0 up to {MOST_CLASSES - 1}")
    return y.astype(np.int64)
