"""`cdm export`: the images of a store as files, or as one .npz, for every other program.

Blocks are compared with their digests as they are read. Nothing is ever overwritten.
"""

from dataclasses import dataclass
from pathlib import Path

from cdm_cli.data.store import open_store
from cdm_cli.jobs.exchange.export_folder import write_folder
from cdm_cli.jobs.exchange.export_npz import write_npz
from cdm_cli.jobs.exchange.export_plan import select_images
from cdm_cli.jobs.sampling.store_images import tell_rows
from cdm_cli.options.files import ExportOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class Exported:
    """The export as it is now. made: images written by this run; the others were there before."""

    out: Path
    format: str
    images: int
    made: int
    resolution: int
    channels: int
    classes: int


def run(options: ExportOptions, report: Report) -> Exported:
    """Write options.out.

    Raises UsageError, MissingError for an unfinished store, BadInputError for a damaged one,
    WouldOverwriteError where out holds something else, StoppedError, DiskError.
    """
    with open_store(options.store) as store:
        selection = select_images(store, options)
        tell_rows(store, options.split, options.num, report)
        store.require_finished()
        write = write_npz if selection.format == "npz" else write_folder
        made = write(selection, options.out, report)
        return Exported(
            out=options.out,
            format=selection.format,
            images=len(selection.rows),
            made=made,
            resolution=selection.resolution,
            channels=selection.channels,
            classes=len(store.classes),
        )
