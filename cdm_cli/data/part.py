"""One part of a store: its samples, by memory map or by checked blocks.

Shapes: images uint8 [N, H, W, C], z float16 [N, h, w, C], labels and ids int64 [N].
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.blocks import Array, Block, Blocks
from cdm_cli.data.guard import Opened
from cdm_cli.data.reading import cut_error, read_stamp
from cdm_cli.data.schema import DIGEST_SIZE, PartName
from cdm_cli.errors import BadInputError, CdmError, MissingError, quote
from cdm_cli.units import format_count

CHECKED_AT_ONCE = 8


class Part(Blocks):
    """The samples under "", "train" or "val" of an open store."""

    def __init__(self, opened: Opened, name: PartName) -> None:
        super().__init__(opened, name)
        self._stamp, self._table, self._good = opened.stamp, b"", set[int]()

    @property
    def resolutions(self) -> list[int]:
        """The resolutions, smallest first."""
        return sorted(self.spec.resolutions)

    def count_channels(self, res: int) -> int:
        """Return the number of channels at a resolution."""
        return self.spec.resolutions[res]

    @property
    def z_times(self) -> list[int]:
        """Every s for which z_s is kept, smallest first."""
        return sorted(self.spec.z)

    def images(self, res: int) -> "np.memmap[Any, Any]":
        """Map all images [N, H, W, C], unchecked; zero where a block is unfinished."""
        return self.map_member(f"images/{res}")

    def z(self, s: int) -> "np.memmap[Any, Any]":
        """Map z_s of all samples [N, h, w, C], unchecked."""
        return self.map_member(f"z/{s}")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels [N], mapped. Raises BadInputError where one is no class."""
        return self.read_labels(slice(None))

    def read_labels(self, rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Return the labels [n] of rows. Raises BadInputError where one is no class."""
        labels = self.map_member("labels")[rows]
        wrong = self.describe_outside(labels)
        if wrong:
            raise self._damage_error(f"{f'{self.name}: ' if self.name else ''}samples {wrong}")
        return labels

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids [N], mapped."""
        return self.map_member("ids")

    def map_member(self, name: str) -> "np.memmap[Any, Any]":
        """Map one member for reading, unchecked. Raises BadInputError for a file cut short."""
        self._require_whole()
        member, place = self.members[name], self._find_place(name, 0)
        with os.fdopen(os.dup(self._opened.fd), "rb") as file:
            return map_array(file, self._opened.path, f"<{member.dtype}", place, member.shape)

    def read_checked(self, b: int) -> Block:
        """Read block b, all of it, and compare it with its digest.

        Keys "images/32", "labels", "ids", "z/501". Raises MissingError if the block was not
        written yet; BadInputError if its bytes are not those that were written, or labels or z are
        invalid (`describe_invalid`).
        """
        self.require_finished(range(b, b + 1))
        block = self.read_block(b)
        if self.compute_digest(b, block) != self.read_digest(b):
            raise self.block_error(b, "do not have the digest they were stored with")
        wrong = self.describe_invalid(block)
        if wrong:
            raise self.block_error(b, wrong)
        return block

    def check(self, rows: NDArray[np.int64]) -> None:
        """Compare each block that holds one of these rows with its digest, once.

        Call it immediately before reading mapped members of a finished part. Raises BadInputError
        for other bytes than were written, and for a file that became shorter: reading its map would
        end the process (SIGBUS).
        """
        self._require_whole()
        new = sorted(set((rows // self.block_size).tolist()) - self._good)
        if not new:
            return
        if not self._table:
            self._table = self.read_digests()
        with ThreadPoolExecutor(min(len(new), _count_cores()), "check") as pool:
            try:
                for b, fault in zip(new, pool.map(self._find_fault, new), strict=True):
                    if fault:
                        raise self.block_error(b, fault)
                    self._good.add(b)
            finally:
                pool.shutdown(cancel_futures=True)

    def recheck(self) -> None:
        """If the file was touched, compare again all blocks that were compared before.

        Raises BadInputError where anything in them has changed since.
        """
        now = read_stamp(self._opened.fd)
        if now == self._stamp:
            return
        self._require_whole()
        good, self._good = self._good, set()
        if self._table and self._table != self.read_digests():
            raise self._damage_error(
                "was changed while it was read: its blocks have other digests now"
            )
        self.check(np.array(sorted(good), np.int64) * self.block_size)
        self._stamp = now

    def _require_whole(self) -> None:
        if read_stamp(self._opened.fd).size < self._opened.layout.size:
            raise cut_error(self._opened.path)

    def _find_fault(self, b: int) -> str:
        """Return what is wrong with the samples of a block, "" for nothing."""
        if not self.check_block(b) or self.read_digest(b) != self._find_first_digest(b):
            return "do not have the digest they were stored with"
        return self.describe_invalid_block(b)

    def _find_first_digest(self, b: int) -> bytes:
        """Return the digest that block b had when the first block was checked."""
        return self._table[b * DIGEST_SIZE : (b + 1) * DIGEST_SIZE]

    def write_block(self, b: int, arrays: Mapping[str, Array]) -> None:
        """Write block b: its bytes and their digest, synced, then its done flag, synced.

        arrays: "images/32" uint8 [n, H, W, C], "labels" and "ids" int64 [n], "z/501" float16
        [n, h, w, C], for the n rows of the block. Raises DiskError; ValueError for other arrays.
        """
        if set(arrays) != set(self.members):
            raise ValueError(f"block has {sorted(arrays)}, expected {sorted(self.members)}")
        for name, member in self.members.items():
            array, shape = arrays[name], (len(self.list_rows(b)), *member.shape[1:])
            if array.shape != shape or array.dtype != np.dtype(member.dtype):
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, expected {member.dtype} {shape}"
                )
        wrong = self.describe_invalid(arrays)
        if wrong:
            raise ValueError(f"samples of block {b} {wrong}")
        self.put_block(b, arrays)

    def require_finished(self, blocks: range | None = None) -> None:
        """Raise MissingError, saying how many are left to make, unless these blocks are written."""
        missing = self.list_missing()
        if missing if blocks is None else set(missing) & set(blocks):
            raise MissingError(
                f"{self._opened.path} is unfinished: {len(missing)} of "
                f"{format_count(self.num_blocks, 'block', 'are')} still to be made",
                kept="the others are safe",
                next=str(self._opened.provenance.get("command") or "rerun what made it"),
            )

    def describe_invalid(self, block: Mapping[str, Array]) -> str:
        """Return what is invalid in the labels and z/<s> of a block, "" if nothing is.

        What is returned ends a sentence: "have labels outside 0..9, the first is 10".
        """
        wrong = self.describe_outside(block["labels"])
        if wrong:
            return wrong
        for s in self.spec.z:
            if not np.isfinite(block[f"z/{s}"]).all():
                return f"have values in z/{s} that are not finite"
        return ""

    def describe_invalid_block(self, b: int) -> str:
        """Return the same of block b as it is in the file, whose images are not read."""
        rows = self.list_rows(b)
        small = ("labels", *(f"z/{s}" for s in self.spec.z))
        return self.describe_invalid(
            {name: self.map_member(name)[rows.start : rows.stop] for name in small}
        )

    def describe_outside(self, labels: NDArray[np.int64]) -> str:
        """Return, as the end of a sentence, which label is outside 0..K - 1; "" if none is."""
        num_classes = len(self._opened.classes)
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if num_classes and len(outside):
            return f"have labels outside 0..{num_classes - 1}, the first is {labels[outside[0]]}"
        return ""

    def block_error(self, b: int, what: str) -> CdmError:
        """Return the error for a block that cannot be used. what: the end of its sentence."""
        rows = self.list_rows(b)
        of = f" of {self.name}" if self.name else ""
        return self._damage_error(f"samples {rows.start}..{rows.stop - 1}{of} {what}")

    def _damage_error(self, what: str) -> CdmError:
        return BadInputError(
            f"{self._opened.path}: {what}",
            kept="the file was left as it is",
            next=f"cdm verify {quote(self._opened.path)}",
        )


def map_array(
    file: BufferedReader, path: Path, dtype: str, offset: int, shape: tuple[int, ...]
) -> "np.memmap[Any, Any]":
    """Map an array that lies in a file. Raises BadInputError where the file ends before it does."""
    try:
        return np.memmap(file, dtype, "r", offset, shape)
    except ValueError:
        raise cut_error(path) from None


def _count_cores() -> int:
    return min(CHECKED_AT_ONCE, len(os.sched_getaffinity(0)))
