"""A folder of images, of any depth.

Symbolic links are followed where that is asked for, each folder once; what is not a regular
file is not opened. So a walk neither leaves the folder unasked, nor waits for a device, nor
goes round.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.listing import (
    DATASET_JSON,
    MAX_BESIDE_BYTES,
    MAX_TABLE_BYTES,
    digest_listing,
    is_junk,
    read_error,
    read_regular,
    sort_names,
)
from cdm_cli.data.skips import Skips, make_printable_name
from cdm_cli.errors import BadInputError, UnsafeInputError

LINK = "symbolic link, not followed without --follow-links"


class FolderSource:
    """The images under a folder, whatever their depth."""

    labels: NDArray[np.int64] | None = None

    def __init__(
        self,
        root: Path,
        names: list[str],
        sizes: NDArray[np.int64],
        dataset_json: bytes | None = None,
        beside: Sequence[str] = (),
        *,
        follow: bool = False,
    ) -> None:
        self.name = root.absolute().name
        self.root, self.names, self.sizes = root, names, sizes
        self.dataset_json, self.beside, self.follow = dataset_json, frozenset(beside), follow

    def take(self, rows: Sequence[int]) -> "FolderSource":
        """Return a source of these images, in this order."""
        names = [self.names[i] for i in rows]
        return FolderSource(self.root, names, self.sizes[list(rows)], follow=self.follow)

    def read(self, i: int) -> bytes:
        """Return the bytes of image i. Raises BadImageError and DiskError."""
        return read_regular(self.root / self.names[i], follow=self.follow)

    def read_beside(self, name: str) -> bytes:
        """Return the bytes of a file beside an image. Raises the errors of `read`."""
        return read_regular(self.root / name, MAX_BESIDE_BYTES, follow=self.follow)

    def digest(self) -> str:
        """Return the sha256 over names and sizes."""
        return digest_listing(self.names, self.sizes)


def open_folder(root: Path, skips: Skips, *, follow: bool = False) -> FolderSource:
    """List a folder, sorted by name; what is left out goes to skips.

    follow: take what symbolic links lead to, too. Raises UnsafeInputError where one leads to a
    folder that is listed already.
    """
    sizes = dict(_list_files(root, skips, follow))
    names = sort_names(sizes, skips)
    dataset_json = None
    if DATASET_JSON in sizes:
        dataset_json = read_regular(root / DATASET_JSON, MAX_TABLE_BYTES, follow=follow)
    ordered = np.array([sizes[name] for name in names.images], np.int64)
    return FolderSource(root, names.images, ordered, dataset_json, names.beside, follow=follow)


def _list_files(root: Path, skips: Skips, follow: bool) -> Iterator[tuple[str, int]]:
    """Yield name and size of every regular file of any depth."""
    folders, known = [""], {_identify(os.stat(root)): ""}
    while folders:
        inside = folders.pop()
        for entry in _list_entries(root, inside, skips):
            name = inside + entry.name
            status = None if is_junk(entry.name) else _read_status(root, name, entry, skips, follow)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                if follow:
                    _check_new(root, name, known, _identify(status))
                folders.append(name + "/")
            elif stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            else:
                skips.add("not a regular file", name)


def _read_status(
    root: Path, name: str, entry: os.DirEntry[str], skips: Skips, follow: bool
) -> os.stat_result | None:
    """Return what an entry is, None for a link that is not followed or leads nowhere."""
    is_link = entry.is_symlink()
    if is_link and not follow:
        skips.add(LINK, name)
        return None
    try:
        return entry.stat(follow_symlinks=follow)
    except OSError as error:
        if not is_link:
            raise read_error(root / name, error) from error
        skips.add("symbolic link that leads nowhere", name)
        return None


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _check_new(
    root: Path, name: str, known: dict[tuple[int, int], str], identity: tuple[int, int]
) -> None:
    """Refuse a folder that is listed already: links may make loops, or a tree without end."""
    before = known.setdefault(identity, name)
    if before != name:
        both = f"'{make_printable_name(name)}' and " + (
            f"'{make_printable_name(before)}'" if before else "it"
        )
        raise UnsafeInputError(
            f"{root} is refused: {both} are one folder, by a symbolic link",
            kept="nothing of it was used",
            next="remove that link",
        )


def _list_entries(root: Path, inside: str, skips: Skips) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / inside) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        if not inside:
            raise BadInputError(f"{root} cannot be read: permission denied") from None
        skips.add("no permission to read", inside)
        return []
    except OSError as error:
        raise read_error(root / inside, error) from error
