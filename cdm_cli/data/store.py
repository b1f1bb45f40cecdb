"""A store: one ordinary HDF5 file, of its final size from the first moment, filled by blocks.

It is created under another name, its space reserved, and renamed; from then on nothing
structural changes. A kill, a full disk or a power cut costs what is being sampled and the block
that is being written, of each process, and the same command continues.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cdm_cli.data import disk, durable, lock, renaming, schema
from cdm_cli.data.guard import Opened, open_vetted, vet
from cdm_cli.data.part import Part
from cdm_cli.data.reading import read_at
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.errors import CdmError, WouldOverwriteError

__all__ = ["Part", "PartSpec", "Store", "StoreSpec", "create", "open_store"]


class Store:
    """An open store. Close it, or use it as a context manager."""

    def __init__(self, opened: Opened, *, owner: bool = False) -> None:
        self._opened: Opened = opened
        self._owner = owner
        self._closed = False
        self.path, self.stamp = opened.path, opened.stamp
        self.kind = opened.kind
        self.contents = opened.contents
        self.classes = list(opened.classes)
        self.provenance: Mapping[str, Any] = opened.provenance
        self.parts: dict[str, Part] = {
            name: Part(opened, name) for name in sorted(opened.contents.parts)
        }

    @property
    def finished(self) -> bool:
        """Whether every block of every part was written."""
        return all(part.finished for part in self.parts.values())

    def require_finished(self) -> None:
        """Raise MissingError, saying how much is missing, unless the store is finished."""
        for part in self.parts.values():
            part.require_finished()

    @property
    def digest(self) -> str:
        """SHA-256 over what is in the store, by the digests of its blocks; not its provenance."""
        hashed = hashlib.sha256(self.contents.encode())
        for part in self.parts.values():
            hashed.update(part.read_digests())
        return hashed.hexdigest()

    def close(self) -> None:
        """Close the file, and with it end the lock."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._owner:
                self._sign(bytes(schema.WRITER_SIZE))
        finally:
            os.close(self._opened.fd)

    def own(self) -> None:
        """Write who holds the lock into the store, for as long as there is something to write."""
        self._owner = True
        self._sign(bytes(schema.WRITER_SIZE) if self.finished else lock.describe_writer())

    def _sign(self, record: bytes) -> None:
        fd, place = self._opened.fd, self._opened.layout.offsets["writer"]
        if read_at(fd, self.path, schema.WRITER_SIZE, place) != record:
            disk.pwrite_all(fd, self.path, record, place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*((CdmError,) if kind else ())):
            self.close()


def create(path: Path | str, spec: StoreSpec) -> Store:
    """Create a store, all of its space reserved, and open it for writing.

    Raises WouldOverwriteError if the path exists, DiskError if the disk is too small.
    """
    path = Path(path)
    attributes = schema.make_attributes(spec)
    layout = schema.lay_out_store(attributes, schema.make_contents(spec))
    if os.path.lexists(path):
        raise _taken_error(path)
    with durable.make_partial(path) as (fd, temporary):
        disk.reserve(fd, temporary, layout.size)
        disk.pwrite_all(fd, temporary, layout.header, 0)
        disk.pwrite_all(fd, temporary, lock.describe_writer(), layout.offsets["writer"])
        if spec.classes:
            packed, _ = schema.pack_classes(spec.classes)
            disk.pwrite_all(fd, temporary, packed, layout.offsets["classes"])
        disk.sync(fd, temporary)
        try:
            renaming.rename_new(temporary, path)
        except renaming.ExistsError:
            raise _taken_error(path) from None
        return _lock_for_writing(vet(os.dup(fd), path), join=False)


def _taken_error(path: Path) -> CdmError:
    return WouldOverwriteError(
        f"{path} exists", kept="it was left as it is", next="choose another name"
    )


def open_store(path: Path | str, writable: bool = False, *, shared: bool = False) -> Store:
    """Open a store for reading, or for writing.

    shared: join the job that writes it already, as one more of its processes. Raises what
    `open_vetted` raises, and StoppedError if another job writes it.
    """
    opened = open_vetted(Path(path), writable=writable)
    return _lock_for_writing(opened, join=shared) if writable else Store(opened)


def _lock_for_writing(opened: Opened, *, join: bool) -> Store:
    try:
        lock.take(opened.fd, opened.path, opened.layout.offsets["writer"], join=join)
        store = Store(opened)
        if not join:
            store.own()
    except BaseException:
        os.close(opened.fd)
        raise
    return store
