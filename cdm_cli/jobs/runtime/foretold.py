"""What a command would cost, in one line: `--dry-run` begins with it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cdm_cli.data.disk import existing
from cdm_cli.units import disk, duration, memory

TIMED, RECKONED = "timed here", "reckoned from a matrix product timed here, roughly"
UNKNOWN = "time unknown"
LONGEST = 2.0  # seconds that one step or batch may take to be timed for a plan


class Foretold(dict[str, Any]):
    """A plan and its cost, whole, beginning with what a person asks."""

    unshown: ClassVar = ("foretold",)  # text begins with it

    def __init__(self, plan: Mapping[str, Any]) -> None:
        super().__init__(plan)
        place = existing(Path(str(plan.get("out") or plan.get("stage") or ".")))
        self["free_bytes"] = shutil.disk_usage(place).free
        self["foretold"] = _line(self)

    def in_short(self) -> list[str]:
        """Return the one line."""
        return [self["foretold"]]


def _line(plan: Mapping[str, Any]) -> str:
    seconds, by = plan.get("estimated_seconds"), plan.get("estimated_by")
    parts = [UNKNOWN if seconds is None else f"{duration(float(seconds))} on this device"]
    parts[0] += f" ({by})" if by else ""
    if plan.get("memory_bytes"):
        parts.append(f"{memory(int(plan['memory_bytes']))} of memory")
    if plan.get("disk_bytes"):
        room = f"(free: {disk(int(plan['free_bytes']))})"
        parts.append(f"{disk(int(plan['disk_bytes']))} on disk {room}")
    return ", ".join(parts)
