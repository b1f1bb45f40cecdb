"""The real images that `--ref` names: a prepared store, or an .npz that others publish."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError, MissingError
from cdm_cli.jobs.judging.images import ImageSet, from_part
from cdm_cli.jobs.judging.npz import Npz, open_npz
from cdm_cli.jobs.sampling.provenance import make_parent

PARTS = "train", "val", ""  # of a store, in the order of references; "" holds samples


@dataclass(frozen=True)
class RealImages:
    """What `--ref` names, opened."""

    path: Path
    source: Store | Npz

    @property
    def digest(self) -> str:
        """What tells these images from others."""
        return self.source.digest

    @property
    def store(self) -> Store | None:
        """The prepared store, None for an .npz."""
        return self.source if isinstance(self.source, Store) else None

    @property
    def parent(self) -> dict[str, str]:
        """Its entry among the parents of what is judged against it."""
        return make_parent("ref", self.path.name, self.digest)

    def images(self, resolution: int) -> dict[str, ImageSet]:
        """Return all images of each part by its name, train first; none of statistics alone.

        Raises MismatchError where a part lacks the resolution.
        """
        store = self.source
        if not isinstance(store, Store):
            if store.images is not None:
                self._check(resolution, [store.images.resolution])
            return {"": store.images} if store.images is not None else {}
        for part in store.parts.values():
            self._check(resolution, part.resolutions)
        return {
            name: from_part(store, name, store.parts[name], resolution, None, 0)
            for name in PARTS
            if name in store.parts
        }

    def _check(self, resolution: int, there: Sequence[int]) -> None:
        if resolution not in there:
            has = ", ".join(map(str, there))
            raise MismatchError(
                f"{self.path} has images of {has} pixels, the samples {resolution}",
                next=f"cdm prepare … --resolution {resolution}, or another --ref",
            )


@contextmanager
def open_real(path: Path) -> Generator[RealImages]:
    """Open what `--ref` names.

    Raises MissingError where it does not exist, or is a store that is not finished, and what
    `open_npz` and `open_store` raise.
    """
    if not path.exists():
        raise MissingError(
            f"--ref {path} does not exist",
            next="cdm prepare makes data.h5 from real images; or --ref FILE",
        )
    if path.suffix == ".npz":
        with open_npz(path) as npz:
            yield RealImages(path, npz)
        return
    with open_store(path) as store:
        store.require_finished()
        yield RealImages(path, store)


def read_digest(path: Path) -> str:
    """Return what tells the real images of `--ref` from others; raise what `open_real` raises."""
    with open_real(path) as real:
        return real.digest
