"""A folder of images, of any depth.

Symbolic links are not followed, and what is not a regular file is not opened: a walk
neither leaves the folder nor waits for a device.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.listing import (
    DATASET_JSON,
    MAX_TABLE_BYTES,
    disk_error,
    is_image_name,
    is_junk,
    listing_digest,
    read_regular,
)
from cdm_cli.data.skips import Skips
from cdm_cli.errors import BadInputError


class FolderSource:
    """The images under a folder, whatever their depth."""

    labels: NDArray[np.int64] | None = None

    def __init__(
        self,
        root: Path,
        names: list[str],
        sizes: NDArray[np.int64],
        dataset_json: bytes | None = None,
    ) -> None:
        self.name = root.absolute().name
        self.root, self.names, self.sizes = root, names, sizes
        self.dataset_json = dataset_json

    def take(self, rows: Sequence[int]) -> "FolderSource":
        """Return a source of these images, in this order."""
        return FolderSource(self.root, [self.names[i] for i in rows], self.sizes[list(rows)])

    def read(self, i: int) -> bytes:
        """Return the bytes of image i."""
        return read_regular(self.root / self.names[i])

    def digest(self) -> str:
        """Return the sha256 over names and sizes."""
        return listing_digest(self.names, self.sizes)


def open_folder(root: Path, skips: Skips) -> FolderSource:
    """List a folder, sorted by name; what is left out goes to skips."""
    sizes: dict[str, int] = {}
    dataset_json = None
    folders = [""]
    while folders:
        inside = folders.pop()
        for entry in _entries(root, inside, skips):
            name = inside + entry.name
            if is_junk(entry.name):
                continue
            if entry.is_symlink():
                skips.add("symbolic link, not followed", name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name + "/")
            elif not entry.is_file(follow_symlinks=False):
                skips.add("not a regular file", name)
            elif name == DATASET_JSON:
                dataset_json = read_regular(root / name, MAX_TABLE_BYTES)
            elif is_image_name(name, skips):
                sizes[name] = entry.stat(follow_symlinks=False).st_size
    names = sorted(sizes)
    ordered = np.array([sizes[name] for name in names], np.int64)
    return FolderSource(root, names, ordered, dataset_json)


def _entries(root: Path, inside: str, skips: Skips) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / inside) as entries:
            return list(entries)
    except PermissionError:
        if not inside:
            raise BadInputError(f"{root} cannot be read: permission denied") from None
        skips.add("no permission to read", inside)
        return []
    except OSError as error:
        raise disk_error(root / inside, error) from error
