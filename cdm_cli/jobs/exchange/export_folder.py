"""A folder of PNG or JPEG files, one folder for each class, encoded in threads.

    out/
    ├── tench, Tinca tinca/00000007.png
    ├── classes.json     label, name and folder of each class
    ├── dataset.json     {"labels": [["folder/file", label], …], "classes": [name, …]}
    └── export.json      what was exported, and whether all of it is there: written last

The folders follow `data/class_folders.py`. `dataset.json` is the label table of NVlabs, which
cdm prepare and cdm import read.
"""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.__version__ import __version__
from cdm_cli.data import disk, durable, renaming
from cdm_cli.data.class_folders import name_files, name_folders
from cdm_cli.data.images import BadImageError, decode, from_array, to_array
from cdm_cli.data.listing import DATASET_JSON, read_regular
from cdm_cli.errors import BadInputError, CdmError, quote
from cdm_cli.jobs.exchange.export_plan import ExportBatch, ExportSelection
from cdm_cli.jobs.runtime.identity import check_same, other_job_error
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.report import Report
from cdm_cli.units import format_count

CLASSES_JSON, EXPORT_JSON = "classes.json", "export.json"
OWN = (CLASSES_JSON, DATASET_JSON, EXPORT_JSON, "__MACOSX")
THREADS = 16  # they wait for the disk more than they compute
JPEG = {"quality": 95, "subsampling": 0}
SUFFIX = {"png": ".png", "jpeg": ".jpg"}
MANIFEST_LIMIT = 2**20


def write_folder(selection: ExportSelection, out: Path, report: Report) -> int:
    """Write all images that are not there yet, then the tables; return how many images.

    Raises WouldOverwriteError for a folder, or a file in it, that another command made;
    BadInputError for a damaged store, StoppedError between two blocks, DiskError.
    """
    claim_folder(selection, out)
    names, labels = ExportNames(selection), list[tuple[str, int]]()
    made, folders = 0, names.list_folders(selection)
    for folder in folders:
        disk.make_directory(out / folder)
        durable.sweep(out / folder)
    with (
        Stop() as stop,
        ThreadPoolExecutor(THREADS, "encode") as pool,
        report.track("export", len(selection.rows), "images") as advance,
    ):
        for batch in selection.read_batches():
            if stop.asked:
                raise stop.error(f"{format_count(batch.first, 'image', 'are')} there")
            paths = names.list_paths(batch)
            targets = [out / path for path in paths]
            made += sum(pool.map(put, targets, batch.images, repeat(selection.format)))
            labels += zip(paths, batch.labels.tolist(), strict=True)
            advance(len(paths), f"{made} new" if made else "already there")
    for folder in folders:
        disk.sync_directory(out / folder)
    _finish(selection, out, names, labels)
    return made


class ExportNames:
    """The path of each image within the export, from its label and its id."""

    def __init__(self, selection: ExportSelection) -> None:
        self._classes = selection.store.classes
        self._folders = name_folders(self._classes, OWN)
        self._stems = name_files(np.asarray(selection.part.ids[selection.rows]))
        self._suffix = SUFFIX[selection.format]

    def find_folder(self, label: int) -> str:
        """Return the folder of a class; of a store without classes, the label."""
        return self._folders[label] if self._classes else str(label)

    def list_paths(self, batch: ExportBatch) -> list[str]:
        """Return the paths of a batch's images within the export."""
        return [
            f"{self.find_folder(label)}/{self._stems[place]}{self._suffix}"
            for place, label in enumerate(batch.labels.tolist(), batch.first)
        ]

    def list_folders(self, selection: ExportSelection) -> list[str]:
        """Return the folders that will hold images. Raises BadInputError for a strange label."""
        labels = np.unique(np.asarray(selection.part.labels[selection.rows])).tolist()
        if self._classes and not 0 <= labels[0] <= labels[-1] < len(self._classes):
            raise BadInputError(
                f"{selection.store.path} has labels outside 0..{len(self._classes) - 1}",
                next=f"cdm verify {quote(selection.store.path)}",
            )
        return [self.find_folder(label) for label in labels]

    def list_rows(self) -> list[dict[str, Any]]:
        """Return the contents of classes.json."""
        pairs = enumerate(zip(self._classes, self._folders, strict=True))
        return [{"label": label, "name": name, "folder": folder} for label, (name, folder) in pairs]


def claim_folder(selection: ExportSelection, out: Path) -> None:
    """Make a new or empty folder this export's; one that is, whole or begun, is left as it is.

    Raises WouldOverwriteError for a folder of anything else.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise _taken_error(out, out, "it is no folder")
    there = _read_manifest(out)
    if there is not None:
        here = selection.identity
        check_same(out, "export", {k: there[k] for k in here if k in there}, here)
        return
    if out.is_dir() and durable.list_finished(out):
        raise _taken_error(out, out, f"it is not empty and has no {EXPORT_JSON}")
    disk.make_directory(out)
    durable.sweep(out)
    _write_manifest(selection, out, finished=False)


def _taken_error(out: Path, path: Path, why: str) -> CdmError:
    return other_job_error(out, f"{path} is not this export: {why}")


def _read_manifest(out: Path) -> dict[str, Any] | None:
    """Return what export.json tells, {} where it cannot be read, None where there is none."""
    if not (out / EXPORT_JSON).exists():
        return None
    try:
        found: Any = json.loads(read_regular(out / EXPORT_JSON, MANIFEST_LIMIT))
    except (ValueError, BadImageError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _write_manifest(selection: ExportSelection, out: Path, *, finished: bool) -> None:
    store = selection.store
    told = {
        **selection.identity,
        "finished": finished,
        "cdm": __version__,
        "source": store.path.name,
        "command": store.provenance.get("command"),
    }
    _write_json(out / EXPORT_JSON, told)


def _write_json(path: Path, value: object) -> None:
    data = json.dumps(value, ensure_ascii=False, indent=None if len(str(value)) > 4096 else 1)
    durable.write_file_atomically(path, data.encode() + b"\n")


def _finish(
    selection: ExportSelection, out: Path, names: ExportNames, labels: list[tuple[str, int]]
) -> None:
    """Write the tables, then that all is there."""
    table: dict[str, Any] = {"labels": labels}
    if selection.store.classes:
        table["classes"] = selection.store.classes
        _write_json(out / CLASSES_JSON, names.list_rows())
    _write_json(out / DATASET_JSON, table)
    _write_manifest(selection, out, finished=True)


def put(path: Path, pixels: np.ndarray, kind: str) -> bool:
    """Write one image [H, W, C] unless it is there; return whether it was written.

    Raises WouldOverwriteError for another image of that name.
    """
    if os.path.lexists(path):
        _check_same(path, pixels, kind)
        return False
    try:
        durable.write_new(path, encode_image(pixels, kind))
    except renaming.ExistsError:  # another process does the same
        _check_same(path, pixels, kind)
        return False
    return True


def _check_same(path: Path, pixels: np.ndarray, kind: str) -> None:
    """Raise WouldOverwriteError for a PNG of other pixels, or a JPEG of other bytes."""
    try:
        data = read_regular(path)
        same = (
            np.array_equal(to_array(decode(data)), pixels)
            if kind == "png"
            else data == encode_image(pixels, kind)
        )
    except BadImageError:
        same = False
    if not same:
        raise _taken_error(path.parent.parent, path, "another image is there")


def encode_image(pixels: np.ndarray, kind: str) -> bytes:
    """Return the file of an image [H, W, C]: PNG without loss, JPEG at quality 95, 4:4:4."""
    stream = io.BytesIO()
    from_array(pixels).save(stream, kind.upper(), **(JPEG if kind == "jpeg" else {}))
    return stream.getvalue()
