"""References that others publish: ADM's VIRTUAL_*.npz and the statistics of clean-fid.

Both hold `mu` [D] and `sigma` [D, D]; ADM's also 10,000 images in `arr_0`. The file does not
say which network and resize its statistics are of, nor how many images: ADM's are those of
TensorFlow's Inception (mode legacy-tensorflow) over the whole training set, clean-fid's name
their mode in the file name. What is known is checked, and what is not is said.
"""

import hashlib
import io
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cdm_cli.data.archives import Member, read_member
from cdm_cli.data.arrays import open_arrays
from cdm_cli.data.part import map_array
from cdm_cli.data.reading import Stamp, read_stamp
from cdm_cli.data.zips import list_zip_members
from cdm_cli.errors import BadInputError, CdmError, MismatchError
from cdm_cli.jobs.judging.images import ImageSet
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.reference import Reference
from cdm_cli.signals import undo_if_left

LIMIT = 8 * 4096**2 + 4096  # bytes of the covariance of 4096 dimensions
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
MOMENTS = {"mu.npy", "sigma.npy"}
CLEANFID_MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")


@dataclass(frozen=True)
class Npz:
    """An opened .npz. images: those of arr_0, or None."""

    path: Path
    digest: str
    members: dict[str, Member]
    images: ImageSet | None

    def moments(self, extractor: FeatureExtractor) -> Reference | None:
        """Return mu and sigma as a reference, or None if the file has none.

        Raises MismatchError for statistics of other dimensions or another mode of Inception.
        """
        if not set(self.members) >= MOMENTS:
            return None
        mu, sigma = self._read("mu"), self._read("sigma")
        D = extractor.feature_dim
        if mu.shape != (D,) or sigma.shape != (D, D):
            raise MismatchError(
                f"{self.path}: mu {mu.shape} and sigma {sigma.shape} do not belong to the {D} "
                f"features of {extractor.name}",
                next="--features inception, or another --ref",
            )
        mode = self.mode()
        if mode is not None and extractor.name != f"inception-{mode}":
            raise MismatchError(
                f"{self.path} holds statistics of inception-{mode}, not of {extractor.name}",
                next=f"--features inception --mode {mode}",
            )
        return Reference(name=self.path.name, num=None, mu=mu, sigma=sigma, digest=self.digest)

    def mode(self) -> str | None:
        """Return the mode of Inception that the statistics are known to be of."""
        if "mu_s.npy" in self.members:
            return "legacy-tensorflow"  # only ADM's evaluator writes spatial statistics
        parts = [mode for mode in CLEANFID_MODES if f"_{mode}_" in f"_{self.path.stem}_"]
        return parts[0].replace("_", "-") if parts else None

    def _read(self, name: str) -> NDArray[np.float64]:
        try:
            content = io.BytesIO(read_member(self.path, self.members[f"{name}.npy"], LIMIT))
            read = HEADERS[npy.read_magic(content)]
            shape, turned, dtype = read(content)
            values = np.frombuffer(content.read(), dtype)
            array = values.reshape(shape, order="F" if turned else "C")
        except CdmError:
            raise
        except Exception as error:  # the parser meets any bytes: Value, Key, Syntax, Unicode, ...
            raise BadInputError(f"{self.path}: {name} is damaged ({error})") from None
        if dtype.kind != "f" or not np.isfinite(array).all():
            raise BadInputError(f"{self.path}: {name} is {dtype}, expected finite floating point")
        return array.astype(np.float64)


@contextmanager
def open_npz(path: Path) -> Generator[Npz]:
    """Open an .npz with mu and sigma, arr_0, or both. No pickle is ever read.

    Raises BadInputError or UnsafeInputError.
    """
    members = {member.name: member for member in list_zip_members(path)}
    if not MOMENTS <= set(members) and "arr_0.npy" not in members:
        raise BadInputError(
            f"{path} has neither mu and sigma nor arr_0", next="another --ref, or cdm prepare"
        )
    before = read_stamp(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    temporary = tempfile.TemporaryDirectory()
    with temporary as folder, undo_if_left(temporary.cleanup):
        images = _open_images(path, digest, members, Path(folder) / "arr_0")
        if images is not None:
            images = replace(images, check=partial(_check_untouched, path, before))
        yield Npz(path, digest, members, images)


def _check_untouched(path: Path, before: Stamp, rows: NDArray[np.int64]) -> None:
    """Raise BadInputError where a file, whose images are mapped, was touched since its digest."""
    if read_stamp(path) != before:
        raise BadInputError(f"{path} was changed while it was read", next="the same command again")


def _open_images(
    path: Path, digest: str, members: dict[str, Member], spool: Path
) -> ImageSet | None:
    if "arr_0.npy" not in members:
        return None
    source = open_arrays(path.name, path, list(members.values()), spool)
    num = len(source.rows)
    with source.path.open("rb") as file:
        images = map_array(file, path, "u1", source.offset, (num, *source.shape))
    labels = np.zeros(num, np.int64) if source.labels is None else source.labels
    return ImageSet(
        name=path.name,
        digest=digest,
        images=images,
        rows=np.arange(num),
        ids=np.arange(num),
        labels=labels,
        classes=tuple(map(str, range(int(labels.max(initial=0)) + 1))),
    )
