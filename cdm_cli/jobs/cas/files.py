"""The directory of a Classification Accuracy Score, and where its reference is kept.

    cas/
    ├── cas.json          recipe and digests of the images: what the numbers are of
    ├── samples/          the classifier trained on samples (training.py)
    ├── real/             that of the real images, where no files can be made beside the data
    ├── table.json, .csv  the numbers with their convention
    ├── classes.json, .csv  accuracy of each class on both
    ├── cas.png           real against samples, class by class (Figure 5)
    └── best.png, worst.png  images of the classes that gain and lose most (Figures 9 and 10)

The classifier of the real images stands beside the data, in `data.h5.stats/cas-…/`, named after
all that decides it: the next store of as many images of each class does not train it again.
"""

import os
from pathlib import Path
from typing import Any, Literal

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.saved import CHECKPOINTS
from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.data import disk, durable
from cdm_cli.errors import CdmError
from cdm_cli.jobs.cas.plan import CasWork, make_key
from cdm_cli.jobs.cas.recipe import CasRecipe
from cdm_cli.jobs.cas.training import OUTCOME
from cdm_cli.jobs.runtime import lock
from cdm_cli.jobs.runtime.identity import advise_remaking, check_same, other_job_error
from cdm_cli.names import CAS_FILE, CAS_TABLE, REPORT
from cdm_cli.settings import Settings

LIMIT = 2**20
TRAININGS = ("samples", "real")
TABLE_CSV, CLASSES, CLASSES_CSV = "table.csv", "classes.json", "classes.csv"
PLOT, BEST, WORST = "cas.png", "best.png", "worst.png"
SHOWN = (
    CAS_TABLE, TABLE_CSV, CLASSES, CLASSES_CSV, PLOT, BEST, WORST, REPORT,
)  # fmt: skip


class CasFile(Settings):
    """The contents of `cas.json`; the digests are of the images alone."""

    schema_version: Literal[1] = 1
    cdm_version: str
    recipe: CasRecipe
    samples: str
    samples_digest: str
    ref: str
    real_digest: str
    val_digest: str

    def list_compared(self) -> dict[str, Any]:
        """Return what must be equal where a directory is continued: recipe and digests."""
        values = self.model_dump(mode="json")
        return values["recipe"] | {
            name: values[name] for name in ("samples_digest", "real_digest", "val_digest")
        }


def make_cas_file(work: CasWork) -> CasFile:
    """Return the contents of `cas.json` for a score."""
    return CasFile(
        cdm_version=__version__,
        recipe=work.recipe,
        samples=work.samples.images.name,
        samples_digest=work.samples.digest,
        ref=work.val.name,
        real_digest=work.real.digest,
        val_digest=work.val.digest,
    )


def claim(out: Path, work: CasWork) -> None:
    """Make the directory of this score, or see that it is this score's already.

    Raises WouldOverwriteError naming what differs, or for a path that is something else.
    """
    check_free(out, work)
    path, mine = out / CAS_FILE, make_cas_file(work)
    if not path.exists():
        disk.make_directory(out)
        text = mine.model_dump_json(indent=2) + "\n"
        durable.write_file_atomically(path, text.encode())


def check_free(out: Path, work: CasWork) -> None:
    """Raise what `claim` raises, writing nothing."""
    path = out / CAS_FILE
    if path.exists():
        there = read_cas_file(out).list_compared()
        check_same(out, "score", there, make_cas_file(work).list_compared())
    elif os.path.lexists(out) and not (out.is_dir() and _holds_outcomes_alone(out)):
        raise other_job_error(out, f"{out} exists and is no directory of cdm eval cas")


def read_cas_file(out: Path) -> CasFile:
    """Read `cas.json`; raise BadInputError for a damaged one, which can be made again.

    Outcomes of trainings stay: they say themselves what they are of, checkpoints do not.
    """
    others = (*SHOWN, *(f"{name}/{CHECKPOINTS}" for name in TRAININGS))
    again = advise_remaking(out, CAS_FILE, others)
    return read_settings(CasFile, out / CAS_FILE, LIMIT, next=again)


def _holds_outcomes_alone(out: Path) -> bool:
    """Whether a directory holds nothing but outcomes of trainings, if anything."""
    found = [out / name for name in durable.list_finished(out)]
    return all(
        path.name in TRAININGS
        and path.is_dir()
        and {*durable.list_finished(path)} <= {OUTCOME, lock.NAME}
        for path in found
    )


def place_reference(data: Path, work: CasWork) -> Path:
    """Return where the classifier of the real images is trained and kept."""
    recipe = work.recipe
    name = f"cas-{recipe.resolution}-{recipe.network}-{make_key(work, work.real)[:16]}"
    return data.with_name(f"{data.name}.stats") / name


def make_writable(directory: Path) -> bool:
    """Make a directory; tell whether it can be written to."""
    try:
        disk.make_directory(directory)
    except (CdmError, OSError):
        return False
    return os.access(directory, os.W_OK)
