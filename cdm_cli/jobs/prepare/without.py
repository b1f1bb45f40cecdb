"""A prepared store once more, without the images that turned out to be unusable."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.data import renaming
from cdm_cli.data.blocks import Block
from cdm_cli.data.part import Part
from cdm_cli.data.schema import PartName, PartSpec, StoreSpec
from cdm_cli.data.store import Store
from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.runtime.identity import advise_another
from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.jobs.sampling.blocks import write_missing
from cdm_cli.report import Report

WITHOUT = ".without"


def copy_without(
    store: Store,
    out: Path,
    spec: StoreSpec,
    left_out: Mapping[PartName, np.ndarray],
    skipped: Mapping[PartName, Mapping[str, Any]],
    report: Report,
) -> None:
    """Copy the good rows of a filled store to out, which appears when it is complete.

    left_out: row numbers of each part. skipped: why, for the provenance. Raises what
    `resume_or_create`, `write_missing` and `give_name` raise.
    """
    path = out.with_name(f"{out.name}{WITHOUT}")
    copied = _make_spec(spec, left_out, skipped)
    with resume_or_create(path, copied, next=advise_another(out)) as copy:
        for part in copy.parts.values():
            name = part.name
            good = np.setdiff1d(np.arange(store.parts[name].num), left_out[name])
            gather = partial(_gather, store.parts[name], part, good)
            write_missing(part, gather, f"copy the good images of {name}", report)
        give_name(path, out)


def give_name(path: Path, out: Path) -> None:
    """Give a store that is complete its name. Raises WouldOverwriteError if that is taken."""
    try:
        renaming.rename_new(path, out)
    except renaming.ExistsError:
        raise WouldOverwriteError(
            f"{out} appeared meanwhile",
            kept=f"the new store is {path}",
            next=advise_another(out),
        ) from None


def _make_spec(
    spec: StoreSpec,
    left_out: Mapping[PartName, np.ndarray],
    skipped: Mapping[PartName, Mapping[str, Any]],
) -> StoreSpec:
    parts: dict[PartName, PartSpec] = {
        name: replace(part, num=part.num - len(left_out[name])) for name, part in spec.parts.items()
    }
    skips = {name: dict(reasons) for name, reasons in skipped.items()}
    return replace(spec, parts=parts, provenance={**spec.provenance, "skipped": skips})


def _gather(source: Part, target: Part, good: np.ndarray, b: int) -> Block:
    """Read what block b of the target holds: rows of `good`, out of blocks that are checked."""
    there = target.list_rows(b)
    rows, size, pieces = good[there.start : there.stop], source.block_size, list[Block]()
    for block in np.unique(rows // size).tolist():
        inside = rows[rows // size == block] - block * size
        found = source.read_checked(block)
        pieces.append({name: array[inside] for name, array in found.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
