"""What an output may be called: a name that promises another format is refused."""

import os
from collections.abc import Callable
from dataclasses import replace
from os.path import exists, isdir, isfile, islink  # false for names that cannot be
from pathlib import Path
from typing import Annotated

from cdm_cli.errors import UsageError, quote
from cdm_cli.names import DATA_ENV
from cdm_cli.options.flag import OUTPUT, Check, Flag

STORES = (".h5", ".hdf5")
FILES = {
    *STORES, ".bmp", ".ckpt", ".csv", ".gif", ".gz", ".htm", ".html", ".jpeg", ".jpg", ".json",
    ".jsonl", ".npy", ".npz", ".parquet", ".pdf", ".pkl", ".png", ".pt", ".pth", ".safetensors",
    ".svg", ".tar", ".tgz", ".tif", ".tiff", ".txt", ".webp", ".zip",
}  # fmt: skip


def _check_end(path: Path, endings: tuple[str, ...], what: str) -> Path:
    if not path.name or isdir(path):
        raise UsageError(
            f"-o {path}: this is a folder, {what} is written, which is a file",
            next=f"-o {quote(path / f'made{endings[0]}')}",
        )
    if path.suffix.lower() in endings:
        return path
    renamed = path.with_suffix(endings[0]) if path.suffix.lower() in FILES else None
    advised = renamed or path.with_name(path.name + endings[0])
    raise UsageError(
        f"-o {path}: {what} is written, the name must end in {' or '.join(endings)}",
        next=f"-o {quote(advised)}",
    )


def _check_store(path: Path) -> Path:
    """Take a name of a store; one that exists under another name is continued."""
    return path if isfile(path) else _check_end(path, STORES, "a store")


def _check_folder(path: Path) -> Path:
    if path.suffix.lower() in FILES and not isdir(path):
        raise UsageError(
            f"-o {path}: a folder is written, the name promises a file",
            next=f"-o {quote(path.with_suffix(''))}",
        )
    return path


def is_npz(path: Path) -> bool:
    """Whether a name is that of an .npz."""
    return path.suffix.lower() == ".npz"


def _check_export(path: Path) -> Path:
    return path if is_npz(path) else _check_folder(path)


def _check_import(path: Path) -> Path:
    return path if path.suffix.lower() in STORES else _check_folder(path)


def _refuse_dangling(take: Callable[[Path], Path]) -> Check:
    """Return a Check that calls `take` and refuses a dangling symbolic link."""

    def take_unlinked(path: Path) -> Path:
        if islink(path) and not exists(path):
            target = path.parent / os.readlink(path)
            raise UsageError(
                f"-o {path}: a symbolic link to {target}, which does not exist",
                next=f"-o {quote(target)}",
            )
        return take(path)

    return Check(take_unlinked)


OUT = Flag("What to write.", "PATH", ("--out", "-o"), group=OUTPUT)
StoreOut = Annotated[Path, _refuse_dangling(_check_store), OUT]
DataOut = Annotated[Path, _refuse_dangling(_check_store), replace(OUT, env=DATA_ENV)]
FolderOut = Annotated[Path, _refuse_dangling(_check_folder), OUT]
ExportOut = Annotated[Path, _refuse_dangling(_check_export), OUT]
ImportOut = Annotated[
    Path,
    _refuse_dangling(_check_import),
    Flag("runs/NAME for a stage, NAME.h5 for images.", "PATH", ("--out", "-o"), group=OUTPUT),
]
PageOut = Annotated[
    Path,
    _refuse_dangling(lambda path: _check_end(path, (".html", ".htm"), "a page of HTML")),
    OUT,
]
PictureOut = Annotated[
    Path, _refuse_dangling(lambda path: _check_end(path, (".png",), "a PNG")), OUT
]
ScheduleOut = Annotated[
    Path, _refuse_dangling(lambda path: _check_end(path, (".json",), "JSON")), OUT
]
TableOut = Annotated[
    Path | None,
    _refuse_dangling(lambda path: _check_end(path, (".json", ".csv"), "a table")),
    Flag("Also write the table as .json or .csv.", "PATH", ("--out", "-o"), group=OUTPUT),
]
