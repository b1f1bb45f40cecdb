"""`cdm verify`: every byte of a store or a stage is compared with the digest it was written with.

A job returns all that it found, good or damaged; `failure` of that result is the error with which
the command ends.
"""

from pathlib import Path

from cdm_cli.cascade.saved import MANIFEST
from cdm_cli.cascade.stagefile import STAGE_FILE, resolve_path
from cdm_cli.data.pruned import missing_error
from cdm_cli.errors import MissingError, UsageError
from cdm_cli.jobs.checking.verify_stage import VerifiedStage, verify_checkpoint, verify_stage
from cdm_cli.jobs.checking.verify_store import VerifiedStore, verify_store
from cdm_cli.names import RUNS
from cdm_cli.options.files import VerifyOptions
from cdm_cli.report import Report


def run(options: VerifyOptions, report: Report) -> VerifiedStore | VerifiedStage:
    """Verify a store, a stage (by name or directory) or one checkpoint.

    Damage is not raised but returned. Raises MissingError, UsageError for --replay of a stage, and
    what `verify_store` raises.
    """
    path = resolve_path(options.path, Path(RUNS))
    if not path.exists():
        raise missing_error(path)
    if not path.is_dir():
        return verify_store(options, report)
    if options.replay is not None:
        raise UsageError(
            f"--replay {options.replay}: {path} is a directory, samples are in stores",
            next="leave --replay away",
        )
    if (path / STAGE_FILE).exists():
        return verify_stage(path, report)
    if (path / MANIFEST).exists():
        return verify_checkpoint(path, report)
    raise MissingError(
        f"{path} is neither a stage directory nor a checkpoint: it has no {STAGE_FILE}",
        next="cdm verify samples.h5, or cdm verify runs/base",
    )
