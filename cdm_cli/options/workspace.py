"""What the commands are asked that look at a workspace as a whole, or tidy it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cdm_cli.names import DEVICE_ENV, Device
from cdm_cli.options.flag import Flag


@dataclass(frozen=True)
class ListOptions:
    """`cdm ls`: a workspace, a stage whose checkpoints are listed, or one store."""

    path: Annotated[
        Path, Flag("A workspace, a stage (also by name) or a store.", "PATH", argument=True)
    ] = Path()


@dataclass(frozen=True)
class PruneOptions:
    """`cdm prune`. agreed: the paths that a person agreed to; None: all that can be removed."""

    path: Annotated[
        Path, Flag("A workspace, a stage (also by name) or a sweep.", "PATH", argument=True)
    ] = Path()
    yes: Annotated[bool, Flag("Remove without asking.", names=("--yes", "-y"))] = False
    agreed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EnvOptions:
    """`cdm env`. device: the one whose precision and class are shown."""

    device: Annotated[Device, Flag("Which device to tell of.", env=DEVICE_ENV)] = "auto"
