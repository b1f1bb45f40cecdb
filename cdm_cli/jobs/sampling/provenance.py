"""What a store says of its making: enough to make it again, and to refuse mixing two makings."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.config import Settings
from cdm_cli.data.store import Store

ARGUMENTS = ("stage", "lowres", "src")  # fields that are typed without a flag
REPEATED = {"resolutions": "--resolution", "augments": "--augment"}  # a flag for each value
CONVENTIONS = {
    "pixels": "x / 127.5 - 1, back by rounding",
    "noise": "philox4x32-10 of (seed, stage, id, step), box-muller",
    "time": "t = 0..T of the paper",
    "z_s": "noised at low resolution, from uint8 z_0 or as the reverse pass left it",
    "enlarging": "bilinear, align_corners=False",
}


def provenance(
    command: str,
    identity: Mapping[str, Any],
    parents: Sequence[Mapping[str, str]],
    numerics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the provenance of a store of samples: plain values only.

    identity: what decides its samples, and must be equal for a run to continue it. command:
    what was typed, other names of the same things allowed.
    """
    return {
        "cdm": __version__,
        "command": command,
        "identity": dict(identity),
        "parents": [dict(parent) for parent in parents],
        "numerics": dict(numerics),
        "conventions": CONVENTIONS,
    }


def parent(role: str, name: str, digest: str) -> dict[str, str]:
    """Return one entry of `parents`."""
    return {"role": role, "name": name, "digest": digest}


def store_parent(store: Store) -> dict[str, str]:
    """Return the entry of a store that samples were made from."""
    return parent("lowres", store.path.name, store.digest)


def typed(command: str, argument: object, options: Settings) -> str:
    """Return the command line that means these options, defaults left away."""
    words = ["cdm", command, str(argument)]
    for name, value in _flags(options):
        flag = f"--{name.replace('_', '-')}"
        if name in REPEATED:
            words += [word for item in value for word in (REPEATED[name], str(item))]
        elif isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-"))
        elif isinstance(value, tuple):
            words += [flag, ",".join(map(str, value))]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _flags(options: Settings) -> Iterator[tuple[str, Any]]:
    """Yield fields of options and of the groups within that are not at their defaults."""
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if isinstance(value, Settings):
            yield from _flags(value)
        elif name == "out" or (value != field.default and name not in ARGUMENTS):
            yield name, value if not isinstance(value, Path) else value.as_posix()
