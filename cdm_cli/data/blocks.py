"""The blocks of one part of a store, as bytes: where they are, their digests, what is done.

Block b holds the rows b * block_size up to (b + 1) * block_size of every member.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data import disk, schema
from cdm_cli.data.guard import Opened
from cdm_cli.data.hdf5 import Dataset
from cdm_cli.data.reading import read_into

PIECE = 2**22
Array = NDArray[Any]
Block = dict[str, Array]  # keys "images/32", "labels", "ids", "z/501"


class Blocks:
    """Reads and writes the blocks of the part "", "train" or "val", without checking digests."""

    def __init__(self, opened: Opened, name: schema.PartName) -> None:
        self._opened = opened
        self.name: schema.PartName = name
        self.spec = opened.contents.parts[name]
        self.members: dict[str, Dataset] = schema.list_members(self.spec)
        self.num = self.spec.num
        self.block_size = opened.contents.block_size
        self.num_blocks = schema.count_blocks(self.num, self.block_size)
        self._tables = schema.list_tables(self.num_blocks)

    def list_rows(self, b: int) -> range:
        """Return the rows of block b; the last block may be short. Raises IndexError."""
        if not 0 <= b < self.num_blocks:
            raise IndexError(f"block {b} of {self.num_blocks}")
        return range(b * self.block_size, min(self.num, (b + 1) * self.block_size))

    def is_done(self, b: int) -> bool:
        """Return whether block b was written completely."""
        return self._read("done", range(b, b + 1)) == b"\1"

    def list_missing(self, blocks: range | None = None) -> list[int]:
        """Return the numbers of the blocks that are still to be written, of all or of a range."""
        some = range(self.num_blocks) if blocks is None else blocks
        flags = self._read("done", some)
        return [b for b, flag in zip(some, flags, strict=True) if flag != 1]

    @property
    def finished(self) -> bool:
        """Whether every block was written."""
        return not self.list_missing()

    def read_digests(self) -> bytes:
        """Return the stored digests of all blocks."""
        return self._read("digest", range(self.num_blocks))

    def check_block(self, b: int) -> bool:
        """Return whether the bytes of block b have the digest that was stored with them."""
        hashed, rows = self._hash(b), self.list_rows(b)
        piece = memoryview(bytearray(PIECE))
        for name in self.members:
            stop = self._find_place(name, rows.stop)
            for place in range(self._find_place(name, rows.start), stop, PIECE):
                view = piece[: stop - place]
                read_into(self._opened.fd, self._opened.path, view, place)
                hashed.update(view)
        return hashed.digest() == self.read_digest(b)

    def read_digest(self, b: int) -> bytes:
        """Return the stored SHA-256 of block b."""
        return self._read("digest", range(b, b + 1))

    def compute_digest(self, b: int, block: Mapping[str, Array]) -> bytes:
        """Return the SHA-256 that block b has if it holds these arrays."""
        hashed = self._hash(b)
        for name in self.members:
            hashed.update(_view_bytes(block[name]))
        return hashed.digest()

    def read_block(self, b: int) -> Block:
        """Read block b, unchecked. Raises DiskError, BadInputError where the file was cut."""
        rows, block = self.list_rows(b), Block()
        for name, member in self.members.items():
            array = np.empty((len(rows), *member.shape[1:]), f"<{member.dtype}")
            place = self._find_place(name, rows.start)
            read_into(self._opened.fd, self._opened.path, _view_bytes(array), place)
            block[name] = array
        return block

    def put_block(self, b: int, block: Mapping[str, Array]) -> None:
        """Write block b: bytes and digest, synced, then its done flag, synced. Raises DiskError."""
        rows = self.list_rows(b)
        for name, member in self.members.items():
            array = np.ascontiguousarray(block[name], f"<{member.dtype}")
            self._write(name, rows.start, _view_bytes(array))
        self._write("digest", b, self.compute_digest(b, block))
        self._sync()
        self._write("done", b, b"\1")
        self._sync()

    def _hash(self, b: int) -> "hashlib._Hash":  # pyright: ignore[reportPrivateUsage]
        """Begin a digest; equal bytes at different places have different ones."""
        return hashlib.sha256(f"{self.name}/{b}/{len(self.list_rows(b))}\n".encode())

    def _find_place(self, name: str, row: int) -> int:
        dataset = self._tables.get(name) or self.members[name]
        start = self._opened.layout.offsets[schema.join_path(self.name, name)]
        return start + row * dataset.row_bytes

    def _read(self, name: str, rows: range) -> bytes:
        place = self._find_place(name, rows.start)
        data = bytearray(self._find_place(name, rows.stop) - place)
        read_into(self._opened.fd, self._opened.path, memoryview(data), place)
        return bytes(data)

    def _write(self, name: str, row: int, data: disk.Bytes) -> None:
        disk.pwrite_all(self._opened.fd, self._opened.path, data, self._find_place(name, row))

    def _sync(self) -> None:
        disk.sync(self._opened.fd, self._opened.path)


def _view_bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
