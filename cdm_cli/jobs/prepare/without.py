"""A prepared store once more, without the images that turned out to be unusable."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.data import renaming
from cdm_cli.data.blocks import Block
from cdm_cli.data.part import Part
from cdm_cli.data.schema import PartName, PartSpec, StoreSpec
from cdm_cli.data.store import Store
from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.runtime.same_store import resume_or_create
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

    left_out: row numbers of each part. skipped: why, for the provenance.
    """
    path = out.with_name(f"{out.name}{WITHOUT}")
    with resume_or_create(path, _spec(spec, left_out, skipped)) as copy:
        for part in copy.parts.values():
            name = part.name
            good = np.setdiff1d(np.arange(store.parts[name].num), left_out[name])
            _copy(store.parts[name], part, good, report)
        give_name(path, out)


def give_name(path: Path, out: Path) -> None:
    """Give a store that is complete its name. Raises WouldOverwriteError if that is taken."""
    try:
        renaming.rename_new(path, out)
    except renaming.ExistsError:
        raise WouldOverwriteError(
            f"{out} appeared meanwhile", kept=f"the new store is {path}", next="another -o"
        ) from None


def _spec(
    spec: StoreSpec,
    left_out: Mapping[PartName, np.ndarray],
    skipped: Mapping[PartName, Mapping[str, Any]],
) -> StoreSpec:
    parts: dict[PartName, PartSpec] = {
        name: replace(part, num=part.num - len(left_out[name])) for name, part in spec.parts.items()
    }
    skips = {name: dict(reasons) for name, reasons in skipped.items()}
    return replace(spec, parts=parts, provenance={**spec.provenance, "skipped": skips})


def _copy(source: Part, target: Part, good: np.ndarray, report: Report) -> None:
    pending = target.pending()
    num = sum(len(target.block_range(b)) for b in pending)
    with report.track(f"copy the good images of {target.name}", num, "images") as advance:
        for b in pending:
            rows = target.block_range(b)
            target.write_block(b, _gather(source, good[rows.start : rows.stop]))
            advance(len(rows), "")


def _gather(source: Part, rows: np.ndarray) -> Block:
    """Read rows [n], ascending, out of the blocks that hold them, each checked."""
    pieces = [
        {name: array[rows[rows // source.block_size == b] - b * source.block_size]
         for name, array in block.items()}
        for b, block in _blocks(source, rows)
    ]  # fmt: skip
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _blocks(source: Part, rows: np.ndarray) -> Iterator[tuple[int, Block]]:
    for b in np.unique(rows // source.block_size).tolist():
        yield b, source.read_checked(b)
