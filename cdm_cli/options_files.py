"""What the commands that only read or rewrite files were asked to do: one frozen model per job."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cdm_cli.config import Settings
from cdm_cli.errors import UsageError, quoted
from cdm_cli.names import (
    GRID,
    SAMPLES,
    Device,
    ExportFormat,
    Origin,
)
from cdm_cli.outputs import ExportOut, FolderOut, ImportOut, PictureOut, StoreOut, is_npz


class ImportCheckpointOptions(Settings):
    """`cdm import`: a checkpoint of openai/guided-diffusion or openai/improved-diffusion.

    flags: what their scripts were given, pasted. classes: a store, a stage, or a text file with
    one name per line; by default the classes are called "0", "1", ….
    """

    checkpoint: Path
    out: FolderOut
    flags: tuple[str, ...] = ()
    origin: Origin | None = None
    from_pickle: bool = False
    classes: Path | None = None


class ImportOptions(Settings):
    """`cdm import`: a checkpoint becomes a stage, images become a store (out ends in .h5).

    flags, origin and from_pickle belong to checkpoints, labels and follow_links to images.
    """

    src: Path
    out: ImportOut
    flags: tuple[str, ...] = ()
    origin: Origin | None = None
    from_pickle: bool = False
    classes: Path | None = None
    labels: Path | None = None
    follow_links: bool = False


class ImportStoreOptions(Settings):
    """Images into a store of samples. classes: all that there are, of which theirs are some."""

    src: Path
    out: StoreOut
    labels: Path | None = None
    classes: Path | None = None
    follow_links: bool = False


class ExportOptions(Settings):
    """`cdm export`. format None: npz where out ends in .npz, else png."""

    store: Path = Path(SAMPLES)
    out: ExportOut
    format: ExportFormat | None = None
    split: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    num: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _named_as_written(self) -> Self:
        if self.format and (self.format == "npz") != is_npz(self.out):
            named = self.out.with_suffix("" if is_npz(self.out) else ".npz")
            what = "one .npz" if self.format == "npz" else "a folder"
            raise UsageError(
                f"--format {self.format}: {what} is written, and -o {self.out} is not named so",
                next=f"-o {quoted(named)}",
            )
        return self


class MergeOptions(Settings):
    """`cdm merge`: stores that were made with --part."""

    parts: tuple[Path, ...] = Field(min_length=1)
    out: StoreOut


class VerifyOptions(Settings):
    """`cdm verify`. replay: how many samples to make again, with `model` and `lowres`."""

    path: Path
    replay: int | None = Field(default=None, ge=1)
    model: str | None = None
    lowres: Path | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Device = "auto"


class InspectOptions(Settings):
    """`cdm inspect`: a store, a stage directory or a checkpoint."""

    path: Path


class GridOptions(Settings):
    """`cdm grid`. num images in all, or per_class of each, `columns` in a row."""

    store: Path = Path(SAMPLES)
    out: PictureOut = Path(GRID)
    split: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    num: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=None, ge=1)
    columns: int | None = Field(default=None, ge=1)
    scale: int | None = Field(default=None, ge=1, le=64)

    @model_validator(mode="after")
    def _has_one_layout(self) -> Self:
        if self.per_class and (self.num or self.columns):
            raise UsageError(
                "--per-class fixes rows and columns", next="leave --num, --columns away"
            )
        return self
