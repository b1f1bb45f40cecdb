"""`cdm import`: what others made becomes a stage or a store, as the name of the output asks."""

from cdm_cli.errors import UsageError
from cdm_cli.jobs.exchange import import_openai, import_store
from cdm_cli.jobs.exchange.import_openai import Imported
from cdm_cli.jobs.exchange.import_store import ImportedStore
from cdm_cli.options.files import ImportOptions
from cdm_cli.options.outputs import STORES
from cdm_cli.report import Report

CHECKPOINTS = {".pt", ".pth", ".ckpt", ".safetensors"}
IMAGES = {".npz", ".zip", ".tar", ".tgz", ".gz", *STORES}
FOR_IMAGES = {"images": "--images", "labels": "--labels", "follow_links": "--follow-links"}
FOR_CHECKPOINTS = {"flags": "--flags", "origin": "--origin", "from_pickle": "--from-pickle"}


def run(options: ImportOptions, report: Report) -> Imported | ImportedStore:
    """Import images where options.out is named as a store, else a checkpoint.

    Raises UsageError where source, output and flags do not go together.
    """
    suffix = options.src.suffix.lower()
    if options.out.suffix.lower() in STORES:
        if suffix in CHECKPOINTS:
            raise UsageError(
                f"-o {options.out}: {options.src} is a checkpoint, which becomes a stage",
                next="-o runs/base",
            )
        _refuse_flags(options, FOR_CHECKPOINTS, "images")
        return import_store.run(options, report)
    if suffix in IMAGES or options.src.is_dir():
        raise UsageError(
            f"-o {options.out}: {options.src} holds images, which become a store",
            next="-o samples.h5",
        )
    _refuse_flags(options, FOR_IMAGES, "a checkpoint")
    return import_openai.run(options, report)


def _refuse_flags(options: ImportOptions, flags: dict[str, str], source: str) -> None:
    for name, flag in flags.items():
        if getattr(options, name):
            raise UsageError(f"{flag}: does not go with {source}", next=f"leave {flag} away")
