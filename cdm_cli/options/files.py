"""What the commands are asked that read, write or rewrite files, and the demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from cdm_cli.errors import UsageError, quote
from cdm_cli.names import (
    DATA,
    DEMO,
    DEVICE_ENV,
    GRID,
    MOST_PROCESSES,
    MOST_RESOLUTION,
    SAMPLES,
    Crop,
    Device,
    ExportFormat,
    Origin,
)
from cdm_cli.options.flag import Flag
from cdm_cli.options.outputs import (
    DataOut,
    ExportOut,
    ImportOut,
    PictureOut,
    StoreOut,
    is_npz,
)
from cdm_cli.options.sampling import AnySeed, Num, PerClass, Resolution, Seed, Split

Labels = Annotated[
    Path | None,
    Flag(
        "Classes: a .csv or dataset.json; or prefix, of names up to the first _; or folders.",
        "FILE",
    ),
]
InHdf5 = Annotated[
    str | None,
    Flag("Dataset of images in an HDF5 file; --labels then names that of labels.", "PATH"),
]
FollowLinks = Annotated[bool, Flag("Follow symbolic links in a folder, also out of it.")]


@dataclass(frozen=True)
class PrepareOptions:
    """`cdm prepare`. labels, val_labels: a table, or one of `data.labels.RULES`.

    images, val_images: of HDF5 files, the datasets; labels and val_labels name datasets then.
    """

    src: Annotated[
        Path,
        Flag(
            "Image folder, .zip, .tar, .npz, HDF5; a class is a first-level folder.",
            "SRC",
            argument=True,
        ),
    ]
    val: Annotated[Path | None, Flag("Images of the validation part.", "SRC")] = None
    labels: Labels = None
    val_labels: Annotated[Path | None, Flag("The same for --val.", "FILE")] = None
    images: InHdf5 = None
    val_images: Annotated[str | None, Flag("The same for --val [default: --images].", "PATH")] = (
        None
    )
    follow_links: FollowLinks = False
    out: DataOut = Path(DATA)
    resolutions: Annotated[
        tuple[Annotated[int, Ge(1), Le(MOST_RESOLUTION)], ...],
        Flag(
            "Resolution to store; repeatable [default: that of the images].",
            "N",
            ("--resolution",),
            repeat=True,
        ),
    ] = ()
    crop: Annotated[Crop, Flag("Centre square, resized as BigGAN or as ADM does.")] = "biggan"
    channels: Annotated[
        int | None, Ge(1), Le(4), Flag("Channels to store [default: as found].", "1-4")
    ] = None
    draft: Annotated[
        bool,
        Flag("Decode JPEGs smaller where 8 pixels are left for one: faster, about 0.5 of 255 off."),
    ] = False
    strict: Annotated[bool, Flag("Stop at the first image that cannot be read.")] = False
    workers: Annotated[
        int | None, Ge(1), Le(MOST_PROCESSES), Flag("Processes [default: all cores].", "N")
    ] = None


@dataclass(frozen=True)
class ImportOptions:
    """`cdm import`: a checkpoint becomes a stage, images become a store (out ends in .h5).

    flags, origin and from_pickle belong to checkpoints, images, labels and follow_links to images.
    flags: what the scripts of openai's packages were given, pasted. images: the dataset of an HDF5
    file, labels then names another. classes: the names of all classes, in a store, a stage, or a
    text file with one a line; by default those that images come with, or "0", "1", ….
    """

    src: Annotated[
        Path,
        Flag(
            "Checkpoint of openai's packages; or image folder, .zip, .tar, .npz, HDF5.",
            "SRC",
            argument=True,
        ),
    ]
    out: ImportOut
    flags: Annotated[
        tuple[str, ...],
        Flag(
            "The flags that it was trained with, pasted [default: known by its name].",
            "TEXT",
            repeat=True,
        ),
    ] = ()
    origin: Annotated[Origin | None, Flag("Package that trained it [default: as found].")] = None
    from_pickle: Annotated[bool, Flag("Read a .pt file, of tensors alone; runs no code.")] = False
    classes: Annotated[
        Path | None, Flag("Names: a store, a stage, or a text of lines.", "FILE")
    ] = None
    images: InHdf5 = None
    labels: Annotated[Path | None, Flag("Classes of images, as for `cdm prepare`.", "FILE")] = None
    follow_links: FollowLinks = False


@dataclass(frozen=True)
class ExportOptions:
    """`cdm export`. format None: npz where out ends in .npz, else png."""

    out: ExportOut
    store: Annotated[Path, Flag("Store to export.", "STORE", argument=True)] = Path(SAMPLES)
    format: Annotated[
        ExportFormat | None, Flag("png, jpeg or npz [default: as --out ends, else png].")
    ] = None
    split: Split = None
    resolution: Resolution = None
    num: Num = None

    def __post_init__(self) -> None:
        """Raise UsageError for a name that promises another format."""
        if self.format and (self.format == "npz") != is_npz(self.out):
            named = self.out.with_suffix("" if is_npz(self.out) else ".npz")
            what = "one .npz" if self.format == "npz" else "a folder"
            raise UsageError(
                f"--format {self.format}: {what} is written, and -o {self.out} is not named so",
                next=f"-o {quote(named)}",
            )


@dataclass(frozen=True)
class MergeOptions:
    """`cdm merge`: stores that were made with --part."""

    parts: Annotated[
        tuple[Path, ...],
        MinLen(1),
        Flag("Stores of the same command, in any order.", "PART", argument=True, repeat=True),
    ]
    out: StoreOut


@dataclass(frozen=True)
class VerifyOptions:
    """`cdm verify`. replay: how many samples to make again, with `model` and `lowres`."""

    path: Annotated[
        Path, Flag("A store, or a stage: its name or directory.", "STORE|RUN", argument=True)
    ]
    replay: Annotated[
        int | None, Ge(1), Flag("Make K samples of a store again and compare.", "K")
    ] = None
    model: Annotated[str | None, Flag("Stage to replay with [default: found].", "STAGE")] = None
    lowres: Annotated[Path | None, Flag("Store that was upsampled [default: found].", "STORE")] = (
        None
    )
    seed: Annotated[AnySeed, Flag("Decides which samples are replayed.", "N")] = 0
    device: Annotated[Device, Flag("Where the network runs.", env=DEVICE_ENV)] = "auto"


@dataclass(frozen=True)
class GridOptions:
    """`cdm grid`. num images in all, or per_class of each class, `columns` in a row.

    Of several stores: num ids in all, a row for each, or per_class of each class in its row.
    """

    stores: Annotated[
        tuple[Path, ...],
        Flag(
            "Store to show; several: their same ids side by side.",
            "STORE",
            argument=True,
            repeat=True,
        ),
    ] = (Path(SAMPLES),)
    out: PictureOut = Path(GRID)
    split: Split = None
    resolution: Resolution = None
    num: Annotated[
        int | None,
        Ge(1),
        Flag("How many images, at most [default: 64, of several stores 10].", "N"),
    ] = None
    per_class: PerClass = None
    columns: Annotated[int | None, Ge(1), Flag("Images in a row [default: square].", "N")] = None
    scale: Annotated[
        int | None, Ge(1), Le(64), Flag("Pixels for one pixel [default: readable].", "N")
    ] = None

    def __post_init__(self) -> None:
        """Raise UsageError where rows and columns are fixed twice."""
        if self.per_class and (self.num or self.columns):
            raise UsageError(
                "--per-class fixes rows and columns", next="leave --num, --columns away"
            )
        if self.columns and len(self.stores) > 1:
            raise UsageError(
                f"--columns {self.columns}: each of the {len(self.stores)} stores is a column",
                next="--num N for N ids, --per-class N for N of each class in its row",
            )


@dataclass(frozen=True)
class DemoOptions:
    """`cdm demo`. A directory of its own, so that nothing of the user's is in the way."""

    directory: Annotated[Path, Flag("Where the demo works.", "DIR", argument=True)] = Path(DEMO)
    seed: Seed = 0
    quiet: bool = False
