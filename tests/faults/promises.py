"""What must hold of a directory at any moment, whatever happened before: nothing is believed.

Every file under its own name is whole; every block that is called done has its digest; every
checkpoint has the bytes that its manifest promises.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from cdm_cli.data import durable
from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.cas.training import OUTCOME
from tests.faults.jobs import STORES, Call, done_blocks, newest_steps


def named(where: Path) -> Iterator[Path]:
    """Yield the files that have their own name, and are in directories that do."""
    for path in sorted(where.rglob("*")):
        inside = path.relative_to(where).parts
        if path.is_file() and not any(part.endswith(durable.PARTIAL) for part in inside):
            yield path


def broken_promises(where: Path, calls: Sequence[Call], inputs: Path) -> list[str]:
    """Return what is wrong, and what of these calls' work is gone."""
    faults, done = [], 0
    for path in named(where):
        if path.suffix in STORES:
            found, blocks = _store(path)
            faults += found
            before = inputs / path.relative_to(where)
            done += blocks - (_store(before)[1] if before.exists() else 0)
        elif path.suffix in (".json", ".safetensors"):
            faults += _file(path)
    removed = any(call.kind == "unlink" and call.path.suffix in STORES for call in calls)
    if done < done_blocks(calls) and not removed:
        faults.append(f"{done_blocks(calls)} blocks were done, {done} still are")
    return faults + _checkpoints(where, calls)


def _store(path: Path) -> tuple[list[str], int]:
    """Return what is wrong with a store, and how many blocks are done."""
    try:
        with open_store(path) as store:
            parts = list(store.parts.values())
            done = [(part, b) for part in parts for b in range(part.num_blocks) if part.is_done(b)]
            wrong = [b for part, b in done if not part.check_block(b)]
    except CdmError as error:
        return [str(error)], 0
    return [f"{path.name}: block {b} is called done, its bytes are others" for b in wrong], len(
        done
    )


def _file(path: Path) -> list[str]:
    """Return what is wrong with a file of JSON, or of tensors behind a header of JSON."""
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            json.loads(data)
            return []
        size = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + size])
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        return [] if len(data) == 8 + size + end else [f"{path.name} is cut"]
    except ValueError:
        return [f"{path.name} is no whole file"]


def _checkpoints(where: Path, calls: Sequence[Call]) -> list[str]:
    """Return what is wrong with the checkpoints that count, and where the newest is gone.

    A classifier that was tested needs its checkpoints no more.
    """
    faults, newest = [], dict[Path, int]()
    for manifest in where.rglob("checkpoints/step-*/manifest.json"):
        home, step = manifest.parent.parent, int(manifest.parent.name[5:])
        newest[home] = max(newest.get(home, 0), step)
        for name, entry in json.loads(manifest.read_bytes())["files"].items():
            path = manifest.parent / name
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
            if found != entry["sha256"]:
                faults.append(f"{manifest.parent.name}/{name} is {found}")
    for path, step in newest_steps(calls).items():
        home = where / path
        if newest.get(home, 0) < step and not (home.parent / OUTCOME).exists():
            faults.append(f"{path}: step {step} was saved, {newest.get(home, 0)} is the newest now")
    return faults
