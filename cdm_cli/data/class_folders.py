"""Names of folders and files for images of a store, whatever its classes are called.

A folder is called like its class where every file system takes that; other characters are
written as %2F, long names are cut and get a digest. No name leaves its folder, is hidden, is
that of another file of an export, or differs from another one in case or composition alone.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PLAIN = set(" ,_-+()'.")  # besides letters and digits
LONGEST = 100  # bytes
DEVICES = {
    "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}  # fmt: skip
NUMBERED = re.compile(r"(?:(\d{1,18})-id(-?\d{1,18})|(\d{1,18}))")
DIGITS = 8


def name_folders(classes: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Return one folder name for each class; reserved: names that are taken already."""
    taken: set[str] = set()
    names: list[str] = []
    for label, name in enumerate(classes):
        folder = _make_safe(name, {word.casefold() for word in reserved} | DEVICES)
        while _fold(folder) in taken:
            folder += f"~{label}"
        taken.add(_fold(folder))
        names.append(folder)
    return names


def _fold(folder: str) -> str:
    """Return what file systems that fold case and compose letters compare."""
    return unicodedata.normalize("NFKC", folder).casefold()


def _make_safe(name: str, reserved: set[str]) -> str:
    letters = [char if char.isalnum() or char in PLAIN else _escape(char) for char in name]
    if not letters:
        return "%"
    if letters[-1] in (".", " "):
        letters[-1] = _escape(letters[-1])
    stem = "".join(letters).casefold()
    if letters[0] in (".", " ", "_", "-") or {stem, stem.partition(".")[0]} & reserved:
        letters[0] = _escape(name[0])
    folder = "".join(letters)
    return folder if len(folder.encode()) <= LONGEST else _cut(folder, name)


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _cut(folder: str, name: str) -> str:
    head = folder.encode()[: LONGEST - 13].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class Numbers(NamedTuple):
    """What the names of images tell: the order of the images, and their ids, both int64 [N]."""

    order: NDArray[np.int64]
    ids: NDArray[np.int64]


def name_files(ids: NDArray[np.int64]) -> list[str]:
    """Return one file name without suffix for each image, from which `read_numbers` reads its id.

    "00000012" where ids [N] increase; else with the place in front, "00000003-id12".
    """
    if not len(ids) or (ids[0] >= 0 and bool((np.diff(ids) > 0).all())):
        return [f"{number:0{DIGITS}d}" for number in ids.tolist()]
    return [f"{place:0{DIGITS}d}-id{number}" for place, number in enumerate(ids.tolist())]


def read_numbers(stems: Sequence[str]) -> Numbers | None:
    """Read order and ids from file names [N]; None unless all of them are such names.

    Plain numbers must differ from each other, or they do not tell images apart.
    """
    found = [NUMBERED.fullmatch(stem) for stem in stems]
    if not found or any(match is None for match in found):
        return None
    matches = [match for match in found if match is not None]
    placed = {match[3] is None for match in matches}
    if len(placed) > 1:
        return None
    places = np.array([int(match[1] or match[3]) for match in matches], np.int64)
    if len(np.unique(places)) != len(places):
        return None
    ids = np.array([int(match[2] or match[3]) for match in matches], np.int64)
    return Numbers(np.argsort(places, kind="stable"), ids)
