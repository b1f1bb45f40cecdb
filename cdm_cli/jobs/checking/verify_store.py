"""Every block of a store is compared with its digest, and samples are made again (`--replay`)."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import BadInputError, CdmError, DiskError, MissingError
from cdm_cli.jobs.checking.replay import Replayed, plan_replay
from cdm_cli.jobs.sampling.parents import find_parents
from cdm_cli.names import RUNS
from cdm_cli.options.files import VerifyOptions
from cdm_cli.report import Report
from cdm_cli.units import format_count, format_disk

THREADS = 8  # hashing is faster than most disks from there on
NAMED = 5  # ranges that the error names; the table has all


@dataclass(frozen=True)
class VerifiedStore:
    """What was found. state: "good", "damaged" or "unfinished".

    damaged, unfinished: one row for each block. parents: one row for each, whose "found" is the
    path of the file or stage with that digest, "" if it is not here. replay: None where it was not
    asked for, or blocks are not good.
    """

    path: Path
    kind: str
    state: str
    bytes: int
    blocks: int
    digest: str
    provenance: Mapping[str, Any]
    replay: Replayed | None
    parents: list[dict[str, str]]
    damaged: list[dict[str, object]]
    unfinished: list[dict[str, object]]

    def show_in_short(self) -> list[str]:
        """Return one line where all is well, nothing otherwise."""
        if self.state != "good":
            return []
        what = (
            f"{format_count(self.blocks, 'block')}, {format_disk(self.bytes)}, each as it was "
            "written"
        )
        return [f"{self.path}: good, {what}{self.replay.sentence if self.replay else ''}"]

    def failure(self) -> CdmError | None:
        """Return BadInputError for damage, MissingError for a store that is unfinished."""
        if self.damaged:
            return BadInputError(
                f"{self.path}: {len(self.damaged)} of "
                f"{format_count(self.blocks, 'block', 'are')} damaged: "
                f"{_list_blocks(self.damaged)}",
                kept="the file was left as it is",
                next="copy it again, or make it again under another name: "
                f"{self.provenance.get('command') or 'with what made it'}",
            )
        if self.unfinished:
            return MissingError(
                f"{self.path} is unfinished: {len(self.unfinished)} of "
                f"{format_count(self.blocks, 'block', 'are')} still to be made: "
                f"{_list_blocks(self.unfinished)}",
                kept="the others are good",
                next=str(self.provenance.get("command") or "rerun what made it"),
            )
        return self.replay.failure(self.path) if self.replay else None


def _list_blocks(rows: list[dict[str, object]]) -> str:
    ranges = [
        f"samples {row['samples']}" + (f" of {row['part']}" if row["part"] else "") for row in rows
    ]
    return ", ".join([*ranges[:NAMED], *(["…"] if len(ranges) > NAMED else [])])


def verify_store(options: VerifyOptions, report: Report) -> VerifiedStore:
    """Check every block; where all are good, make samples again if that is asked for.

    Raises what `open_store` raises and, before a block is read, what `plan_replay` raises where
    samples cannot be made again; MemoryFloorError and StoppedError while they are made.
    """
    with open_store(options.path) as store, ExitStack() as opened:
        asked = options.replay is not None
        replayed = plan_replay(store, options, opened, report) if asked else None
        damaged, unfinished = check_blocks(store, report)
        again = replayed() if replayed and not damaged and not unfinished else None
        bad = damaged or (again is not None and again.differing)
        state = "damaged" if bad else "unfinished" if unfinished else "good"
        return VerifiedStore(
            path=options.path,
            kind=store.kind,
            state=state,
            bytes=options.path.stat().st_size,
            blocks=sum(part.num_blocks for part in store.parts.values()),
            digest=store.digest,
            provenance=store.provenance,
            replay=again,
            parents=find_parents(
                store.provenance, Path(RUNS), [Path(), options.path.absolute().parent]
            ),
            damaged=damaged,
            unfinished=unfinished,
        )


BlockFaults = list[dict[str, object]]


def check_blocks(store: Store, report: Report) -> tuple[BlockFaults, BlockFaults]:
    """Compare every block with its digest; return rows of damaged ones, and of unwritten ones."""
    damaged: BlockFaults = []
    unfinished: BlockFaults = []
    total = sum(part.num_blocks for part in store.parts.values())
    with report.track("verify", total, "blocks") as advance:
        for part in store.parts.values():
            missing = part.list_missing()
            unfinished += [_locate_block(part, b) for b in missing]
            advance(len(missing), "")
            for b, what in _find_faults(part, sorted(set(range(part.num_blocks)) - set(missing))):
                advance(1, f"{len(damaged)} damaged" if damaged else "")
                if what:
                    damaged.append({**_locate_block(part, b), "what": what})
    return damaged, unfinished


def _locate_block(part: Part, b: int) -> dict[str, object]:
    rows = part.list_rows(b)
    return {"part": part.name, "block": b, "samples": f"{rows.start}..{rows.stop - 1}"}


def _find_faults(part: Part, blocks: list[int]) -> Iterator[tuple[int, str]]:
    """Yield (block, what is wrong with it), "" for nothing, in order; threads read ahead."""
    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "verify") as pool:
        try:
            yield from zip(blocks, pool.map(partial(find_fault, part), blocks), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def find_fault(part: Part, b: int) -> str:
    """Return what is wrong with a finished block, as the end of a sentence, "" for nothing."""
    try:
        if not part.check_block(b):
            return "does not have the digest it was stored with"
    except DiskError as error:
        return error.what
    return part.describe_invalid_block(b)
