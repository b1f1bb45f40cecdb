"""One part of a store: its samples, read by memory map or by checked blocks, written by blocks.

Shapes: images uint8 [N, H, W, C], z float16 [N, h, w, C], labels and ids int64 [N].
"""

import hashlib
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data import durable, schema
from cdm_cli.data.guard import Opened
from cdm_cli.data.hdf5 import Dataset
from cdm_cli.errors import BadInputError, DiskError, MissingError

PIECE = 2**22
Array = NDArray[Any]


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


class Part:
    """The samples under "", "train" or "val" of an open store."""

    def __init__(self, opened: Opened, name: str) -> None:
        self._opened = opened
        self.name = name
        self._spec = opened.contents.parts[name]  # pyright: ignore[reportArgumentType]
        self._members = schema.block_members(self._spec)
        self.num = self._spec.num
        self.block_size = opened.contents.block_size
        self.num_blocks = schema.num_blocks(self.num, self.block_size)

    @property
    def resolutions(self) -> list[int]:
        """The resolutions, smallest first."""
        return sorted(self._spec.resolutions)

    def channels(self, res: int) -> int:
        """Return the number of channels at a resolution."""
        return self._spec.resolutions[res]

    @property
    def z_times(self) -> list[int]:
        """Every s for which z_s is kept, smallest first."""
        return sorted(self._spec.z)

    @property
    def spec(self) -> schema.PartSpec:
        """Number, resolutions and z."""
        return self._spec

    @property
    def members(self) -> dict[str, Dataset]:
        """Names of what a block holds, in the order in which they are hashed."""
        return dict(self._members)

    def block_range(self, b: int) -> range:
        """Return the rows of block b; the last block may be short."""
        if not 0 <= b < self.num_blocks:
            raise IndexError(f"block {b} of {self.num_blocks}")
        return range(b * self.block_size, min(self.num, (b + 1) * self.block_size))

    def images(self, res: int) -> "np.memmap[Any, Any]":
        """Map all images [N, H, W, C]. Rows of unfinished blocks are zero."""
        return self._mapped(f"images/{res}")

    def z(self, s: int) -> "np.memmap[Any, Any]":
        """Map z_s of all samples [N, h, w, C]."""
        return self._mapped(f"z/{s}")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels [N], mapped."""
        return self._mapped("labels")

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids [N], mapped."""
        return self._mapped("ids")

    def _mapped(self, name: str) -> "np.memmap[Any, Any]":
        member = self._members[name]
        with os.fdopen(os.dup(self._opened.fd), "rb") as file:
            return np.memmap(
                file, dtype=f"<{member.dtype}", mode="r", offset=self._offset(name),
                shape=member.shape,
            )  # fmt: skip

    def _offset(self, name: str) -> int:
        return self._opened.layout.offsets[schema.at(self.name, name)]

    def read_rows(self, name: str, rows: range) -> Array:
        """Read consecutive rows of one member, unchecked."""
        member = self._members[name]
        out = np.empty((len(rows), *member.shape[1:]), f"<{member.dtype}")
        view = _bytes(out)
        self._fill(view, self._offset(name) + rows.start * member.row_bytes)
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        path = self._opened.path
        while len(view):
            try:
                count = os.preadv(self._opened.fd, [view[: 2**30]], offset)
            except OSError as error:
                raise DiskError(
                    f"{path} cannot be read: {error.strerror}", next="see to the disk"
                ) from error
            if count == 0:
                raise BadInputError(f"{path} became shorter while it was read", next="restore it")
            view, offset = view[count:], offset + count

    def _small(self, name: str, start: int, count: int) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data), self._offset(name) + start)
        return bytes(data)

    def done(self, b: int) -> bool:
        """Tell whether block b was written completely."""
        return self._small("done", self._index(b), 1) == b"\1"

    def _index(self, b: int) -> int:
        return self.block_range(b).start // self.block_size

    def pending(self) -> list[int]:
        """Return the blocks that are still to be written."""
        flags = self._small("done", 0, self.num_blocks)
        return [b for b, flag in enumerate(flags) if flag != 1]

    @property
    def finished(self) -> bool:
        """Whether every block was written."""
        return not self.pending()

    def block_digest(self, b: int) -> bytes:
        """Return the stored SHA-256 of block b."""
        return self._small("digest", self._index(b) * schema.DIGEST_SIZE, schema.DIGEST_SIZE)

    def digests(self) -> bytes:
        """Return the stored digests of all blocks."""
        return self._small("digest", 0, self.num_blocks * schema.DIGEST_SIZE)

    def read_checked(self, b: int) -> dict[str, Array]:
        """Read block b, all of it, and compare it with its digest.

        Keys "images/32", "labels", "ids", "z/501". Raises MissingError if the block was not
        written yet, BadInputError if its bytes are not those that were written.
        """
        self._require_done(b)
        rows = self.block_range(b)
        arrays = {name: self.read_rows(name, rows) for name in self._members}
        if self._digest(b, arrays) != self.block_digest(b):
            raise self._bad(b)
        return arrays

    def check_block(self, b: int) -> bool:
        """Tell whether the bytes of block b have the digest that was stored with them."""
        rows, hashed = self.block_range(b), hashlib.sha256(self._title(b))
        piece = bytearray(PIECE)
        for name, member in self._members.items():
            place, left = (
                self._offset(name) + rows.start * member.row_bytes,
                len(rows) * member.row_bytes,
            )
            while left:
                view = memoryview(piece)[: min(left, PIECE)]
                self._fill(view, place)
                hashed.update(view)
                place, left = place + len(view), left - len(view)
        return hashed.digest() == self.block_digest(b)

    def _require_done(self, b: int) -> None:
        if not self.done(b):
            raise MissingError(
                f"{self._opened.path} is unfinished: {len(self.pending())} of {self.num_blocks} "
                f"blocks are still to be made",
                kept="the others are safe",
                next="the command that made it continues it",
            )

    def _bad(self, b: int) -> BadInputError:
        rows = self.block_range(b)
        return BadInputError(
            f"{self._opened.path}: samples {rows.start}..{rows.stop - 1} "
            f"({self.name or 'samples'}, block {b}) do not have the digest they were stored with",
            kept="the file was left as it is",
            next=f"cdm verify {self._opened.path}",
        )

    def _title(self, b: int) -> bytes:
        """Blocks of equal bytes at different places have different digests."""
        return f"{self.name}/{b}/{len(self.block_range(b))}\n".encode()

    def _digest(self, b: int, arrays: Mapping[str, Array]) -> bytes:
        hashed = hashlib.sha256(self._title(b))
        for name in self._members:
            hashed.update(_bytes(arrays[name]))
        return hashed.digest()

    def write_block(self, b: int, arrays: Mapping[str, Array]) -> None:
        """Write block b: its bytes and their digest, synced, then its done flag, synced.

        arrays: "images/32" uint8 [n, H, W, C], "labels" and "ids" int64 [n], "z/501" float16
        [n, h, w, C], for the n rows of the block. Raises DiskError; ValueError for other arrays.
        """
        held = self._fitted(b, arrays)
        rows, fd, path = self.block_range(b), self._opened.fd, self._opened.path
        for name, member in self._members.items():
            place = self._offset(name) + rows.start * member.row_bytes
            durable.pwrite_all(fd, path, _bytes(held[name]), place)
        digest_at = self._offset("digest") + b * schema.DIGEST_SIZE
        durable.pwrite_all(fd, path, self._digest(b, held), digest_at)
        durable.sync(fd, path)
        durable.pwrite_all(fd, path, b"\1", self._offset("done") + b)
        durable.sync(fd, path)

    def _fitted(self, b: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
        num = len(self.block_range(b))
        if set(arrays) != set(self._members):
            raise ValueError(f"block has {sorted(arrays)}, expected {sorted(self._members)}")
        held: dict[str, Array] = {}
        for name, member in self._members.items():
            array, shape = arrays[name], (num, *member.shape[1:])
            if array.shape != shape or array.dtype != np.dtype(member.dtype):
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, expected {member.dtype} {shape}"
                )
            held[name] = np.ascontiguousarray(array, dtype=f"<{member.dtype}")
        return held

    def forget_block(self, b: int) -> None:
        """Clear the done flag of block b, so that it is written again."""
        place = self._offset("done") + self._index(b)
        durable.pwrite_all(self._opened.fd, self._opened.path, b"\0", place)
        durable.sync(self._opened.fd, self._opened.path)

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample, all its members together."""
        return sum(member.row_bytes for member in self._members.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return math.prod((self.num, self.bytes_per_sample))
