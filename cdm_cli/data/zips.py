"""The list of a zip's members, checked before any of them is read."""

import os
import zipfile
from pathlib import Path

from cdm_cli.data.archives import (
    DEFLATED,
    KEPT,
    LOCAL_HEADER,
    MAX_RATIO,
    STORED,
    Member,
    MemberSpan,
    add_once,
    clean_name,
    limit_size,
    unsafe_error,
)
from cdm_cli.data.listing import read_error
from cdm_cli.data.reading import open_regular
from cdm_cli.errors import BadInputError, CdmError

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # plain, strong, and a masked directory
_FILE, _FOLDER = 0o100000, 0o040000


def list_zip_members(path: Path) -> list[Member]:
    """List the files of a zip after checking all of it.

    Raises UnsafeInputError for what `archives` refuses, BadInputError for a damaged zip.
    """
    entries, directory = _list_entries(path)
    entries.sort(key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), directory]
    members: dict[str, Member] = {}
    for entry, end in zip(entries, ends, strict=False):
        name = clean_name(path, entry.orig_filename.replace("\\", "/"))
        _check(path, entry, end)
        if not entry.is_dir():
            how = DEFLATED if entry.compress_type == zipfile.ZIP_DEFLATED else STORED
            sizes = (entry.compress_size, entry.file_size)
            span = MemberSpan(entry.header_offset, end, *sizes, entry.CRC, how)
            add_once(path, members, Member(name, span))
    return list(members.values())


def _list_entries(path: Path) -> tuple[list[zipfile.ZipInfo], int]:
    try:
        with os.fdopen(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            return archive.infolist(), archive.start_dir
    except CdmError:
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except Exception as error:  # the parser meets damaged bytes: struct, Unicode, Index, ...
        raise BadInputError(f"{path} is a damaged zip ({error})", kept=KEPT) from error


def _check(path: Path, entry: zipfile.ZipInfo, end: int) -> None:
    kind = (entry.external_attr >> 16) & 0o170000
    least = LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size
    faults = {
        "is encrypted": entry.flag_bits & _ENCRYPTED,
        "is a link or a device": kind not in (0, _FILE, _FOLDER),
        "uses a compression other than stored and deflate": entry.compress_type not in (0, 8),
        "overlaps another member": entry.header_offset < 0 or entry.header_offset + least > end,
        f"expands more than {MAX_RATIO} times": entry.file_size > limit_size(entry.compress_size),
    }
    for fault, found in faults.items():
        if found:
            raise unsafe_error(path, entry.filename, fault)
