"""What the commands are asked that look at a workspace or at one thing in it, or tidy it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from cdm_cli.names import DEVICE_ENV, REPORT, SAMPLES, Device
from cdm_cli.options.flag import Flag
from cdm_cli.options.outputs import PageOut


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


@dataclass(frozen=True)
class InspectOptions:
    """`cdm inspect`: a store, a stage directory or a checkpoint."""

    path: Annotated[
        Path, Flag("A store, a stage directory or a checkpoint.", "FILE", argument=True)
    ]


@dataclass(frozen=True)
class ReportOptions:
    """`cdm report`: one page on what is at a path."""

    path: Annotated[
        Path,
        Flag("A store; or a directory of a stage, a sweep, or eval cas.", "PATH", argument=True),
    ] = Path(SAMPLES)
    out: PageOut = Path(REPORT)


@dataclass(frozen=True)
class DefaultsOptions:
    """`cdm defaults`: what a stage is sampled with unless told otherwise."""

    stage: Annotated[str, Flag("A stage: its name in runs/ or a directory.", "NAME", argument=True)]
    take: Annotated[
        int | None,
        Ge(0),
        Flag("Make the K-th that was applied the default, 0: the stage's own.", "K"),
    ] = None
