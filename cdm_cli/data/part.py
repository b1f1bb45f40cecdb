"""One part of a store: its samples, by memory map or by checked blocks.

Shapes: images uint8 [N, H, W, C], z float16 [N, h, w, C], labels and ids int64 [N].
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.blocks import Array, Block, Blocks
from cdm_cli.errors import BadInputError, CdmError, MissingError

AHEAD = 2


class Part(Blocks):
    """The samples under "", "train" or "val" of an open store."""

    @property
    def resolutions(self) -> list[int]:
        """The resolutions, smallest first."""
        return sorted(self.spec.resolutions)

    def channels(self, res: int) -> int:
        """Return the number of channels at a resolution."""
        return self.spec.resolutions[res]

    @property
    def z_times(self) -> list[int]:
        """Every s for which z_s is kept, smallest first."""
        return sorted(self.spec.z)

    def images(self, res: int) -> "np.memmap[Any, Any]":
        """Map all images [N, H, W, C], unchecked; zero where a block is unfinished."""
        return self.mapped(f"images/{res}")

    def z(self, s: int) -> "np.memmap[Any, Any]":
        """Map z_s of all samples [N, h, w, C], unchecked."""
        return self.mapped(f"z/{s}")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels [N], mapped."""
        return self.mapped("labels")

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids [N], mapped."""
        return self.mapped("ids")

    def mapped(self, name: str) -> "np.memmap[Any, Any]":
        """Map one member for reading, unchecked."""
        member, place = self.members[name], self._place(name, 0)
        with os.fdopen(os.dup(self._opened.fd), "rb") as file:
            return np.memmap(file, f"<{member.dtype}", "r", offset=place, shape=member.shape)

    def read_checked(self, b: int) -> Block:
        """Read block b, all of it, and compare it with its digest.

        Keys "images/32", "labels", "ids", "z/501". Raises MissingError if the block was not
        written yet; BadInputError if its bytes are not those that were written, or mean nothing.
        """
        self.require_finished(range(b, b + 1))
        block = self.read_block(b)
        if self.digest_of(b, block) != self.block_digest(b):
            raise self.bad_block(b, "do not have the digest they were stored with")
        wrong = self.meaningless(block)
        if wrong:
            raise self.bad_block(b, wrong)
        return block

    def checked_blocks(self) -> Iterator[tuple[range, Block]]:
        """Read all blocks in order, ahead of their user, as `read_checked` does."""
        with ThreadPoolExecutor(AHEAD, "blocks") as pool:
            ahead: deque[Future[Block]] = deque()
            try:
                for b in range(self.num_blocks + AHEAD):
                    if b < self.num_blocks:
                        ahead.append(pool.submit(self.read_checked, b))
                    if b >= AHEAD:
                        yield self.block_range(b - AHEAD), ahead.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def write_block(self, b: int, arrays: Mapping[str, Array]) -> None:
        """Write block b: its bytes and their digest, synced, then its done flag, synced.

        arrays: "images/32" uint8 [n, H, W, C], "labels" and "ids" int64 [n], "z/501" float16
        [n, h, w, C], for the n rows of the block. Raises DiskError; ValueError for other arrays.
        """
        if set(arrays) != set(self.members):
            raise ValueError(f"block has {sorted(arrays)}, expected {sorted(self.members)}")
        for name, member in self.members.items():
            array, shape = arrays[name], (len(self.block_range(b)), *member.shape[1:])
            if array.shape != shape or array.dtype != np.dtype(member.dtype):
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, expected {member.dtype} {shape}"
                )
        wrong = self.meaningless(arrays)
        if wrong:
            raise ValueError(f"samples of block {b} {wrong}")
        self.put_block(b, arrays)

    def require_finished(self, blocks: range | None = None) -> None:
        """Raise MissingError, saying how much there is to do, unless these blocks are done."""
        pending = self.pending()
        if pending if blocks is None else set(pending) & set(blocks):
            raise MissingError(
                f"{self._opened.path} is unfinished: {len(pending)} of {self.num_blocks} "
                f"blocks are still to be made",
                kept="the others are safe",
                next=str(self._opened.provenance.get("command") or "rerun what made it"),
            )

    def meaningless(self, block: Mapping[str, Array]) -> str:
        """Return what no job would write, as the end of a sentence, "" if there is nothing.

        Looks at the labels and z/<s> of a block, as `read_block` gives it.
        """
        labels, num_classes = block["labels"], len(self._opened.classes)
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if num_classes and len(outside):
            return f"have labels outside 0..{num_classes - 1}, the first is {labels[outside[0]]}"
        for s in self.spec.z:
            if not np.isfinite(block[f"z/{s}"]).all():
                return f"have values in z/{s} that are not finite"
        return ""

    def bad_block(self, b: int, what: str) -> CdmError:
        """Return the error for a block that cannot be used."""
        rows = self.block_range(b)
        return BadInputError(
            f"{self._opened.path}: samples {rows.start}..{rows.stop - 1}"
            f"{' of ' + self.name if self.name else ''} {what}",
            kept="the file was left as it is",
            next=f"cdm verify {self._opened.path}",
        )
