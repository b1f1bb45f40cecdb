"""Where images come from: a folder, .zip, .tar(.gz), ADM .npz or HDF5 file, behind one protocol.

A source lists names first and reads each image when asked, in any process. The first bytes of a
file say what it is, not its name; only a zip of arrays may be told by the name .npz. Nothing
outside a source is ever read, unless links of a folder are to be followed.
"""

import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.archives import open_archive
from cdm_cli.data.arrays import IMAGES, open_arrays
from cdm_cli.data.folders import open_folder
from cdm_cli.data.hdf5_foreign import Inside, is_hdf5, open_hdf5
from cdm_cli.data.images import U8, BadImageError
from cdm_cli.data.listing import DATASET_JSON
from cdm_cli.data.skips import Skips
from cdm_cli.data.spool import write_spool
from cdm_cli.data.tars import gunzip, list_tar_members
from cdm_cli.data.zips import list_zip_members
from cdm_cli.errors import BadInputError, UsageError
from cdm_cli.translation import no_input


class Source(Protocol):
    """Images by position; safe to send to another process.

    name: of the source itself, without its folder. names: of the images, "/" between
    folders. labels: numbers that came with the images. dataset_json: NVlabs's label
    table, if the source holds one at its root. beside: files that may be labels of images.
    """

    name: str
    names: list[str]
    labels: NDArray[np.int64] | None
    dataset_json: bytes | None

    @property
    def beside(self) -> Collection[str]:
        """Names of files beside images, for `read_beside`; a part of a source has none."""
        ...

    def take(self, rows: Sequence[int]) -> Self:
        """Return a source of these images, in this order."""
        ...

    def read(self, i: int) -> bytes | U8:
        """Return the bytes of the file of image i, or its pixels uint8 [H, W, C].

        Raises BadImageError where this one image cannot be used; BadInputError, UnsafeInputError
        or DiskError where the source as a whole cannot.
        """
        ...

    def read_beside(self, name: str) -> bytes:
        """Return the bytes of a file beside an image. Raises BadImageError."""
        ...

    def digest(self) -> str:
        """Return the sha256 of the listing: names, sizes, and checksums where known."""
        ...


def open_source(
    path: Path, skips: Skips, spool: Path, *, follow: bool = False, inside: Inside | None = None
) -> Source:
    """List a source. What is passed over goes to skips; spool takes what must be unpacked.

    follow: whether symbolic links of a folder are followed; an archive that has links is refused.
    inside: which datasets of an HDF5 file are meant.

    Raises UsageError where inside names no dataset, or path is no HDF5 file; MissingError where
    nothing is at path; BadInputError, UnsafeInputError, DiskError.
    """
    try:
        return _open(path, skips, spool, follow, inside)
    except BadImageError as error:  # only the label table is read while listing
        raise BadInputError(f"{DATASET_JSON} in {path} cannot be used: {error}") from error


def _open(path: Path, skips: Skips, spool: Path, follow: bool, inside: Inside | None) -> Source:
    kind, name = _find_kind(path), path.absolute().name
    if kind == "hdf5":
        return open_hdf5(path, inside, spool)
    if inside is not None:
        raise UsageError(
            f"--images {inside.images}: {path} is no HDF5 file", next="leave out --images"
        )
    if kind == "folder":
        return open_folder(path, skips, follow=follow)
    if kind in ("tar", "gzip"):
        where = path if kind == "tar" else write_spool(gunzip(path), spool)
        return open_archive(name, where, list_tar_members(where), skips)
    members = list_zip_members(path)
    if any(member.name == IMAGES for member in members) or path.suffix == ".npz":
        return open_arrays(name, path, members, spool)
    return open_archive(name, path, members, skips)


def _find_kind(path: Path) -> str:
    """Return "folder", "zip", "gzip", "tar" or "hdf5". Raises MissingError, BadInputError."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return "folder"
        if not stat.S_ISREG(mode):
            raise BadInputError(f"{path} is neither a folder nor a regular file")
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise no_input(path) from None
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    return _find_kind_of_bytes(path, head)


def _find_kind_of_bytes(path: Path, head: bytes) -> str:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[257:262] == b"ustar":
        return "tar"
    if is_hdf5(path):
        return "hdf5"
    looks = f"begins with {head[:12]!r}" if head else "is empty"
    raise BadInputError(
        f"{path} is no image folder, .zip, .tar, .tar.gz, .npz or HDF5: it {looks}",
        next="cdm prepare FOLDER, or one of these archives",
    )
