"""Which class an image has: its first folder, a table, what lies beside it, its name, or an array.

- Folders: class = first folder level. A single folder that holds no images of its own
  is a wrapper and is looked through. Images without any folder are one class, "all".
- csv: `file,label` or `file,class`, or all three; with or without a header line. Whole
  numbers are class ids, anything else is a class name.
- dataset.json as NVlabs writes it: {"labels": [["path", k], ...]} or {"labels": {path: k}}.
  It is used without being asked for if it lies at the source's root; where it says that
  there are no labels, all images are one class: its folders are shards.
- `.cls` or `.json` files beside the images (`data/beside.py`), also without being asked for.
- "prefix" in place of a table: class = what stands before the first "_" in the name of a file.
  "folders" in place of a table: by folders, even where the source holds labels.

Class ids follow the sorted names; names that are all whole numbers are sorted as numbers.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.arrays import ArraySource
from cdm_cli.data.beside import find_labels_beside
from cdm_cli.data.folders import LINK
from cdm_cli.data.listing import DATASET_JSON, NOT_BY_NAME
from cdm_cli.data.skips import Skips, as_unicode, make_printable_name
from cdm_cli.data.sources import Source
from cdm_cli.data.tables import LabelTable, read_json, read_label_table
from cdm_cli.errors import BadInputError, MismatchError, quote
from cdm_cli.names import MOST_CLASSES
from cdm_cli.units import format_count

NO_FOLDER = "beside the class folders"
NO_LABEL = "not in the label table"
NO_LABEL_BESIDE = "no label beside it"
NO_PREFIX = "no _ in the name"
PREFIX, FOLDERS = "prefix", "folders"
RULES = (PREFIX, FOLDERS)  # what may stand in place of a table
ALL = "all"
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".npz")
HINTED = 3  # prefixes that are told as examples


@dataclass(frozen=True)
class Labelled:
    """A source of labelled images. classes None: the labels are bare numbers.

    y: int64 [N]. how: where the labels came from, for the reader of a summary. beside: the suffix
    of the files that told them, () where others did.
    """

    source: Source
    y: NDArray[np.int64]
    classes: tuple[str, ...] | None
    how: str
    beside: str | tuple[()] = ()


def find_labels(source: Source, table: Path | None, skips: Skips) -> Labelled:
    """Find the class of every image; those without one go to skips.

    table: a file, or one of RULES. Raises MissingError (no table), BadInputError (a broken table,
    too many classes), MismatchError (a table of other files).
    """
    found = _find_labels(source, table, skips)
    for name in sorted(source.beside):
        if not name.endswith(found.beside):
            skips.add(NOT_BY_NAME, name)
    return found


def _find_labels(source: Source, table: Path | None, skips: Skips) -> Labelled:
    rule = str(table)
    if rule in RULES:
        return (
            _label_by_prefix(source, skips) if rule == PREFIX else _label_by_folder(source, skips)
        )
    if table is not None:
        return _label_by_table(source, read_label_table(table), table.name, skips)
    if isinstance(source, ArraySource) and source.labels is not None:
        return Labelled(source, source.labels, None, source.labelled_by)
    if source.dataset_json is not None:
        found = read_json(source.dataset_json, f"{DATASET_JSON} in {source.name}")
        if found is None:
            how = f"{DATASET_JSON} has no labels: one class; --labels {FOLDERS} takes its folders"
            return _number_classes(source, [ALL] * len(source.names), how)
        return _label_by_table(source, found, DATASET_JSON, skips)
    beside = find_labels_beside(source)
    if beside is not None:
        read, suffix = beside
        how = f"{suffix} files beside the images"
        return replace(_label_by_table(source, read, how, skips, NO_LABEL_BESIDE), beside=suffix)
    return _label_by_folder(source, skips)


def require_images(found: Labelled, path: Path, skips: Skips) -> None:
    """Raise BadInputError, saying how many files were skipped and why, if there is no image."""
    if found.source.names:
        return
    told = "; ".join(f"{count} {reason}" for reason, count in skips.counts.items())
    raise BadInputError(
        f"{path} holds no image that can be used{': ' + told if told else ''}",
        next="--follow-links" if LINK in skips.counts else _advise_images(path),
    )


def _advise_images(path: Path) -> str:
    for inside in sorted(path.iterdir()) if path.is_dir() else ():
        if inside.name.lower().endswith(ARCHIVES):
            return f"{quote(inside)} in its place"
    return "a folder, .zip, .tar or .npz of .png, .jpg or .webp images"


def list_classes(train: Labelled) -> tuple[str, ...]:
    """Return the names of all classes; for labels without names the numbers 0, 1, … written out."""
    if train.classes is not None:
        return train.classes
    return tuple(str(k) for k in range(int(train.y.max(initial=-1)) + 1))


def translate_labels(
    classes: Sequence[str],
    found: Labelled,
    whose: str = "train",
    next: str = "give both the same class folders, or tables with --labels and --val-labels",
) -> NDArray[np.int64]:
    """Translate the labels that were found into ids of `classes`, by name; return them, int64 [N].

    Labels without names are ids of `classes` already, unless all of its names are numbers. whose:
    what the message calls the owner of `classes`. Raises MismatchError naming the classes that are
    not among them, and the nearest names.
    """
    if found.classes == tuple(classes):
        return found.y
    numbered = all(name.isascii() and name.isdigit() for name in classes)
    if found.classes is None and not numbered:
        top = int(found.y.max(initial=0))
        unknown = f"label {top}" if top >= len(classes) else ""
        y = found.y
    else:
        times = Counter(classes)
        ids = {name: k for k, name in enumerate(classes) if times[name] == 1}
        names = list_classes(found)
        used = [names[k] for k in np.unique(found.y).tolist()]
        unknown = _describe_unknown([name for name in used if name not in ids], classes)
        y = np.array([ids.get(name, -1) for name in names], np.int64)[found.y]
    if unknown:
        raise MismatchError(
            f"{found.source.name} has {unknown}, not among the "
            f"{format_count(len(classes), 'class')} of {whose}",
            kept="nothing was written",
            next=next,
        )
    return y


def _describe_unknown(names: Sequence[str], classes: Sequence[str]) -> str:
    if not names:
        return ""
    near = difflib.get_close_matches(names[0], classes, n=3, cutoff=0.4)
    hint = f" (near {', '.join(map(repr, near))})" if near else ""
    return f"class {', '.join(map(repr, names[:3]))}{hint}"


def _label_by_table(
    source: Source, table: LabelTable, name: str, skips: Skips, without: str = NO_LABEL
) -> Labelled:
    keep = _keep(source, [file in table.values for file in source.names], without, skips)
    if not keep:
        told = make_printable_name(next(iter(table.values)))
        has = make_printable_name(source.names[0]) if source.names else "no image"
        raise MismatchError(
            f"{name} labels {told!r} and others, {source.name} holds {has!r}: none fits"
        )
    taken = source.take(keep)
    values = [table.values[file] for file in taken.names]
    missing = len(table.values) - len(keep)
    how = f"{name}, {missing} of its files not found" if missing else name
    if isinstance(values[0], str):
        return _number_classes(taken, [str(value) for value in values], how)
    return Labelled(taken, np.array(values, np.int64), table.names, how)


def _keep(source: Source, fits: Sequence[bool], reason: str, skips: Skips) -> list[int]:
    """Return the places of images that fit; the others go to skips."""
    for name, fit in zip(source.names, fits, strict=True):
        if not fit:
            skips.add(reason, name)
    return [i for i, fit in enumerate(fits) if fit]


def _label_by_folder(source: Source, skips: Skips) -> Labelled:
    rows = isinstance(source, ArraySource)  # whose names are of a dataset, which is no folder
    folders = [() if rows else tuple(name.split("/")[:-1]) for name in source.names]
    depth = 0
    while _is_wrapper(folders, depth):
        depth += 1
    if not any(folders):
        return _number_classes(
            source, [ALL] * len(folders), f"no folders: one class{_hint(source.names)}"
        )
    keep = _keep(source, [len(parts) > depth for parts in folders], NO_FOLDER, skips)
    inside = "/".join(folders[keep[0]][:depth])
    how = f"class folders inside {make_printable_name(inside)!r}" if inside else "class folders"
    return _number_classes(source.take(keep), [folders[i][depth] for i in keep], how)


def _label_by_prefix(source: Source, skips: Skips) -> Labelled:
    """Take what stands before the first "_" in the name of a file, as guided-diffusion does."""
    files = [name.rpartition("/")[2] for name in source.names]
    keep = _keep(source, ["_" in file for file in files], NO_PREFIX, skips)
    prefixes = [files[i].partition("_")[0] for i in keep]
    return _number_classes(source.take(keep), prefixes, "names of files, up to the first _")


def _hint(names: Sequence[str]) -> str:
    """Say that names look as if they began with classes, if they do."""
    found = Counter(name.partition("_")[0] for name in names if "_" in name)
    if found.total() < len(names) or not 2 <= len(found) <= len(names) // 2:
        return ""
    told = ", ".join(f"{make_printable_name(prefix)}_" for prefix in sorted(found)[:HINTED])
    return f"; names begin with {told}{' …' * (len(found) > HINTED)}: --labels {PREFIX}"


def _is_wrapper(folders: Sequence[tuple[str, ...]], depth: int) -> bool:
    """Tell whether a single folder of this depth holds all images, in folders of its own."""
    if not folders or min(map(len, folders)) < depth + 2:
        return False
    return len({parts[depth] for parts in folders}) == 1


def _number_classes(source: Source, names: Sequence[str], how: str) -> Labelled:
    written = {name: as_unicode(name) for name in set(names)}
    classes = sorted(set(written.values()))
    if len(classes) > MOST_CLASSES:
        raise BadInputError(
            f"{source.name} has {len(classes)} classes; {MOST_CLASSES} are possible"
        )
    if all(name.isascii() and name.isdigit() for name in classes):
        classes.sort(key=_as_number)
    ids: Mapping[str, int] = {name: k for k, name in enumerate(classes)}
    y = np.array([ids[written[name]] for name in names], np.int64)
    return Labelled(source, y, tuple(classes), how)


def _as_number(name: str) -> tuple[int, str, str]:
    """Return what sorts digits as numbers, however many there are."""
    digits = name.lstrip("0")
    return len(digits), digits, name
