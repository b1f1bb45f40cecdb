"""A store that the same job began is continued, another job's is refused.

What is compared is the part of the provenance that decides samples (`identity`), the kind of the
store, and the names, shapes and types of what is in it.
"""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cdm_cli.data import schema
from cdm_cli.data.disk import check_room, unlink
from cdm_cli.data.schema import StoreSpec
from cdm_cli.data.store import Store, create, open_store
from cdm_cli.errors import BadInputError, MismatchError, WouldOverwriteError
from cdm_cli.jobs.runtime.differences import FieldDifference, find_first_difference
from cdm_cli.jobs.runtime.identity import (
    other_job_error,
    read_identity,
)


def find_store_difference(store: Store, spec: StoreSpec) -> FieldDifference | None:
    """Return where a store differs from the one that is asked for, None if nowhere."""
    contents = schema.make_contents(spec)
    pairs = (
        ({"kind": store.kind}, {"kind": spec.kind}),
        (read_identity(store.provenance), read_identity(spec.provenance)),
        (json.loads(store.contents.encode()), json.loads(contents.encode())),
    )
    return next(filter(None, (find_first_difference(*pair) for pair in pairs)), None)


def resume_or_create(path: Path | str, spec: StoreSpec, *, next: str = "") -> Store:
    """Open the store that this same job began, or create it.

    Raises WouldOverwriteError naming the first difference if another job made it, StoppedError
    if a job is writing it.
    """
    path = Path(path)
    if not os.path.lexists(path):
        try:
            return create(path, spec)
        except WouldOverwriteError:  # another process was quicker
            pass
    store = open_store(path, writable=True)
    try:
        check_same_store(store, spec, next=next)
    except WouldOverwriteError:
        store.close()
        raise
    return store


@contextmanager
def remove_if_refused(path: Path) -> Generator[None]:
    """Remove a store that is being made where what it is made from is refused meanwhile.

    What an error then advises, other files or other flags, is another command, which would not
    continue it.
    """
    try:
        yield
    except (BadInputError, MismatchError):
        unlink(path)
        raise


def check_resume_or_create(path: Path, spec: StoreSpec) -> None:
    """Raise what `resume_or_create` will, as far as can be known without writing anything.

    That is WouldOverwriteError for a store of another job, MissingError and DiskError where a
    new one has no place.
    """
    if os.path.lexists(path):
        with open_store(path) as store:
            return check_same_store(store, spec)
    layout = schema.lay_out_store(schema.make_attributes(spec), schema.make_contents(spec))
    check_room(path, layout.size)


def check_same_store(store: Store, spec: StoreSpec, *, next: str = "") -> None:
    """Raise WouldOverwriteError naming the first difference of a store from what is asked for.

    next: as in `other_job_error`.
    """
    found = find_store_difference(store, spec)
    if found:
        what = f"{store.path} is of another command: {found}"
        raise other_job_error(store.path, what, next=next)
