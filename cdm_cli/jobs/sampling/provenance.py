"""What a store says of its making: enough to make it again, and to refuse mixing two makings."""

import shlex
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.data.store import Store
from cdm_cli.options.flag import Flagged, list_flags

CONVENTIONS = {
    "pixels": "x / 127.5 - 1, back by rounding",
    "noise": "philox4x32-10 of (seed, stage, id, step), box-muller",
    "time": "t = 0..T of the paper",
    "z_s": "noised at low resolution, from uint8 z_0 or as the reverse pass left it",
    "enlarging": "bilinear, align_corners=False",
}


def make_provenance(
    command: str,
    identity: Mapping[str, Any],
    parents: Sequence[Mapping[str, str]],
    conventions: Mapping[str, str] = CONVENTIONS,
    **more: object,
) -> dict[str, Any]:
    """Return the provenance of a store, plain values only, with the version of cdm.

    command: one that asks for the same as the one that was typed. identity: what decides the
    images, and must be equal for a run to continue the store. conventions: what its numbers mean;
    by default those of samples. more: what else is told, as numerics and note, unless it is empty.
    """
    return {
        "cdm": __version__,
        "command": command,
        "identity": dict(identity),
        "parents": [dict(parent) for parent in parents],
        "conventions": dict(conventions),
        **{name: value for name, value in more.items() if value},
    }


def find_numerics(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numerics that a provenance tells of, {} where it tells of none."""
    found: Any = provenance.get("numerics")
    return found if isinstance(found, dict) else {}


def make_parent(role: str, name: str, digest: str) -> dict[str, str]:
    """Return one entry of `parents`."""
    return {"role": role, "name": name, "digest": digest}


def make_store_parent(store: Store) -> dict[str, str]:
    """Return the entry of a store that samples were made from."""
    return make_parent("lowres", store.path.name, store.digest)


def list_parents(provenance: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the parents that a provenance tells of, as far as they are told in full."""
    told: Any = provenance.get("parents")
    rows = told if isinstance(told, list) else []
    return [
        {key: str(row.get(key, "")) for key in ("role", "name", "digest")}
        for row in rows
        if isinstance(row, dict)
    ]


def spell_command(command: str, options: object) -> str:
    """Return the command line of these options, without those at their default, except `--out`."""
    arguments, flags = [], list[str]()
    for item in list_flags(type(options)):
        value = reduce(getattr, item.path, options)
        if item.flag.argument:
            arguments += map(_spell_value, value if isinstance(value, tuple) else [value])
        elif value != item.default or item.name == "out":
            flags += _spell_flag(item, value)
    return shlex.join(["cdm", *command.split(), *arguments, *flags])


def _spell_flag(item: Flagged, value: Any) -> list[str]:
    """Return how a flag is typed that gives a field this value."""
    on, _, off = item.names[0].partition("/")
    if isinstance(value, bool):
        return [on if value else off]
    if isinstance(value, tuple) and item.flag.repeat:
        return [word for one in value for word in (on, _spell_value(one))]
    return [
        on,
        ",".join(map(_spell_value, value)) if isinstance(value, tuple) else _spell_value(value),
    ]


def _spell_value(value: object) -> str:
    return value.as_posix() if isinstance(value, Path) else str(value)
