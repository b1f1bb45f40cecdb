"""What an output may be called: a name that promises another format is refused."""

from os.path import isdir, isfile  # false for names that cannot be
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cdm_cli.errors import UsageError, quoted

STORES = (".h5", ".hdf5")
FILES = {
    *STORES, ".bmp", ".ckpt", ".csv", ".gif", ".gz", ".jpeg", ".jpg", ".json", ".jsonl", ".npy",
    ".npz", ".parquet", ".pdf", ".pkl", ".png", ".pt", ".pth", ".safetensors", ".svg", ".tar",
    ".tgz", ".tif", ".tiff", ".txt", ".webp", ".zip",
}  # fmt: skip


def _ends(path: Path, endings: tuple[str, ...], what: str) -> Path:
    if not path.name or isdir(path):
        raise UsageError(
            f"-o {path}: this is a folder, {what} is written, which is a file",
            next=f"-o {quoted(path / f'made{endings[0]}')}",
        )
    if path.suffix.lower() in endings:
        return path
    renamed = path.with_suffix(endings[0]) if path.suffix.lower() in FILES else None
    advised = renamed or path.with_name(path.name + endings[0])
    raise UsageError(
        f"-o {path}: {what} is written, the name must end in {' or '.join(endings)}",
        next=f"-o {quoted(advised)}",
    )


def _store(path: Path) -> Path:
    """Take a name of a store; one that exists under another name is continued."""
    return path if isfile(path) else _ends(path, STORES, "a store")


def _folder(path: Path) -> Path:
    if path.suffix.lower() in FILES and not isdir(path):
        raise UsageError(
            f"-o {path}: a folder is written, the name promises a file",
            next=f"-o {quoted(path.with_suffix(''))}",
        )
    return path


def is_npz(path: Path) -> bool:
    """Whether a name is that of an .npz."""
    return path.suffix.lower() == ".npz"


def _exported(path: Path) -> Path:
    return path if is_npz(path) else _folder(path)


def _imported(path: Path) -> Path:
    return path if path.suffix.lower() in STORES else _folder(path)


StoreOut = Annotated[Path, AfterValidator(_store)]
FolderOut = Annotated[Path, AfterValidator(_folder)]
ExportOut = Annotated[Path, AfterValidator(_exported)]
ImportOut = Annotated[Path, AfterValidator(_imported)]
PictureOut = Annotated[Path, AfterValidator(lambda path: _ends(path, (".png",), "a PNG"))]
ScheduleOut = Annotated[Path, AfterValidator(lambda path: _ends(path, (".json",), "JSON"))]
TableOut = Annotated[
    Path | None,
    AfterValidator(lambda path: path and _ends(path, (".json", ".csv"), "a table")),
]
