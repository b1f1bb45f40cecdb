"""The rows of `cdm ls`: one for each thing in a workspace, as a table or as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cdm_cli.errors import CdmError

LONGEST, LONGEST_NOTE = 40, 100  # characters of a cell of the table; --json has it whole
BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of `cdm ls`.

    done, of: steps of a stage, or samples of a store. fid: the lowest that is known of it, against
    train where that is known. size: in bytes. when: the last change, in seconds since 1970. note:
    what is wrong with it, or why a checkpoint is kept.
    """

    name: str
    kind: str
    state: str
    resolution: str = ""
    preset: str = ""
    done: int | None = None
    of: int | None = None
    fid: float | None = None
    size: int | None = None
    made_from: tuple[str, ...] = ()
    when: float | None = None
    note: str = ""

    def cells(self) -> dict[str, str]:
        """Return the cells of the table by title, as text; long ones are cut."""
        cells = {
            "name": self.name,
            "kind": self.kind,
            "resolution": self.resolution,
            "preset": self.preset,
            "done": _write_share(self.done, self.of),
            "state": self.state,
            "FID": "" if self.fid is None else f"{self.fid:.4g}",
            "size": "" if self.size is None else in_bytes(self.size),
            "made from": ", ".join(self.made_from),
            "when": _write_time(self.when, "%Y-%m-%d %H:%M"),
        }
        short = {title: _cut(cell, LONGEST) for title, cell in cells.items()}
        return short | {"note": _cut(self.note, LONGEST_NOTE)}

    def values(self) -> dict[str, Any]:
        """Return the values of --json by name."""
        return asdict(self) | {"when": _write_time(self.when, "%Y-%m-%dT%H:%M:%S%z")}


def _write_share(done: int | None, of: int | None) -> str:
    if done is None or of is None or done == of:
        return "" if done is None else str(done)
    return f"{done} of {of}"


def _cut(cell: str, most: int) -> str:
    return cell if len(cell) <= most else f"{cell[: most - 1]}…"


def _write_time(seconds: float | None, form: str) -> str:
    try:
        found = None if seconds is None else datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):  # a year that has no date here
        return ""
    return found.strftime(form) if found else ""


def in_bytes(size: int) -> str:
    """Return a number of bytes with its unit, in about three digits: "812 B", "31.2 MB"."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


@dataclass(frozen=True)
class Listing:
    """What `cdm ls` found at a path."""

    path: Path
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def header(self) -> list[str]:
        """Return the titles of the columns in which any row has a cell."""
        shown = [row.cells() for row in self.rows]
        titles = dict.fromkeys(title for row in shown for title in row)
        return [title for title in titles if any(row[title] for row in shown)]

    def lines(self) -> list[list[str]]:
        """Return the cells of each row."""
        titles = self.header()
        return [[row.cells()[title] for title in titles] for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "path": str(self.path),
            "rows": [row.values() for row in self.rows],
            "notes": list(self.notes),
        }

    def gather_notes(self) -> list[str]:
        """Return what stands below the table."""
        return list(self.notes)


def describe_or_tell_why(name: str, kind: str, look: Callable[[], Row], **known: Any) -> Row:
    """Return what look returns; where that cannot be read, a row of the same name that says why.

    known: further values of that row.
    """
    try:
        return look()
    except CdmError as error:
        what = error.what
    except OSError as error:
        what = error.strerror or str(error)
    except (ValueError, TypeError, RecursionError) as error:
        what = f"it cannot be read ({type(error).__name__})"
    return replace(Row(name=name, kind=kind, state=BROKEN, note=what), **known)


def find_text(values: Mapping[str, Any], name: str) -> str:
    """Return the text of that name in what a stranger may have written, "" if it is no text."""
    found = values.get(name)
    return found if isinstance(found, str) else ""
