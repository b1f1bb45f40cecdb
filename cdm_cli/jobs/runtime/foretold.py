"""What a command would cost, in one line: `--dry-run` begins with it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.data.disk import find_existing
from cdm_cli.units import format_disk, format_duration, format_memory, format_operations

TIMED, RECKONED = "timed here", "reckoned from a matrix product timed here, roughly"
UNKNOWN = "time unknown"
SETTINGS = "all settings: -v"
LONGEST = 2.0  # seconds that one step or batch may take to be timed for a plan
COUNTED = 10_000  # from here on a number is grouped: 128,000
# What the first line tells, in other units, and what of it is of one image.
TOLD = {
    "bytes", "disk_bytes", "estimated_by", "estimated_seconds", "flops_per_image", "foretold",
    "free_bytes", "memory_bytes", "memory_bytes_per_image",
}  # fmt: skip


class Foretold(dict[str, Any]):
    """A plan and its cost as a mapping; `--dry-run` shows `show_in_short`, a line of it first."""

    unshown: ClassVar = ("foretold",)  # text begins with it

    def __init__(self, plan: Mapping[str, Any]) -> None:
        super().__init__(plan)
        place = find_existing(Path(str(plan.get("out") or plan.get("stage") or ".")))
        self["free_bytes"] = shutil.disk_usage(place).free
        self["foretold"] = _write_line(self)

    def show_in_short(self) -> list[str | Mapping[str, Any] | Sequence[Mapping[str, Any]]]:
        """Return the line, then counts in units of people, then tables under their names."""
        rows = {name: value for name, value in self.items() if _is_rows(value)}
        settings = {name for name, value in self.items() if isinstance(value, Mapping)}
        counts = {
            name.replace("_bytes", ""): _count(name, value)
            for name, value in self.items()
            if name not in {*TOLD, *rows, *settings}
        }
        tables = [part for name in rows for part in ("", f"{name}:", rows[name])]
        return [self["foretold"], "", counts, *tables, *([SETTINGS] if settings else [])]


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, Mapping) for row in value)


def _count(name: str, value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if name.endswith("flops"):
        return format_operations(value)
    if name.endswith("bytes"):
        return format_disk(value)
    return f"{value:,}" if value >= COUNTED and name != "seed" else value


def _write_line(plan: Mapping[str, Any]) -> str:
    seconds, by = plan.get("estimated_seconds"), plan.get("estimated_by")
    parts = [UNKNOWN if seconds is None else f"{format_duration(float(seconds))} on this device"]
    parts[0] += f" ({by})" if by else ""
    if plan.get("memory_bytes"):
        parts.append(f"{format_memory(int(plan['memory_bytes']))} of memory")
    if plan.get("disk_bytes") is not None:
        room = f"(free: {format_disk(int(plan['free_bytes']))})"
        taken = format_disk(int(plan["disk_bytes"])) if plan["disk_bytes"] else "next to nothing"
        parts.append(f"{taken} on disk {room}")
    return ", ".join(parts)
