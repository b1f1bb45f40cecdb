"""What decides the last bits of a training besides its plan, and where a resume changed it.

A sum of floating-point numbers depends on how it is cut: by threads, by processes, by kernels of
another device or version. A run that is continued under other numbers ends in other bytes than an
undisturbed one, so it says so, and every later checkpoint tells it (`resumed` in `state.json`).
"""

from collections.abc import Mapping

import torch

from cdm_cli.jobs.runtime.device import describe_build, name_device_class
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.names import Precision
from cdm_cli.settings import Settings

Numerics = Mapping[str, bool | int | str]


class Resumed(Settings):
    """A resume after `step` under other numerics: those that differ, as they were and are now."""

    step: int
    before: dict[str, bool | int | str]
    now: dict[str, bool | int | str]

    def __str__(self) -> str:
        """Return "threads was 4, now 2"."""
        return "; ".join(
            f"{name} was {old}, now {self.now[name]}" for name, old in self.before.items()
        )


def list_numerics(
    session: Session, precision: Precision, *, compiled: bool, exact: bool
) -> dict[str, bool | int | str]:
    """Return what decides the last bits of a step here. threads: of a CPU, in each process.

    exact: the number of processes changes no bit, so it is left out.
    """
    device = session.device
    threads = {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    return {
        "device": name_device_class(device),
        "build": describe_build(device),
        "precision": precision,
        "compiled": compiled,
        **({} if exact else {"processes": session.world.size}),
        **threads,
    }


def compare_numerics(step: int, before: Numerics, now: Numerics) -> Resumed | None:
    """Compare the names that both have; return those whose values differ, None if none do."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    if not changed:
        return None
    old, new = ({name: each[name] for name in changed} for each in (before, now))
    return Resumed(step=step, before=old, now=new)
