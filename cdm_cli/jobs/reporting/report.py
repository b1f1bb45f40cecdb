"""`cdm report`: what there is to know of a stage, sweep, score or store, as one page of HTML."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.cascade.stagefile import STAGE_FILE, read_stage_file, resolve_path
from cdm_cli.config import StageConfig
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError
from cdm_cli.jobs.cas.page import tell_score
from cdm_cli.jobs.curve.page import find_curves
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.reporting.store import tell_store
from cdm_cli.jobs.sweep.page import make_page, name_subject
from cdm_cli.jobs.training.page import draw_stage_sections, read_weights_metadata
from cdm_cli.names import CAS_FILE, CURVE, RUNS, SWEEP_FILE
from cdm_cli.options.workspace import ReportOptions
from cdm_cli.report import Report
from cdm_cli.translation import no_input


@dataclass(frozen=True)
class Reported:
    """The page that was written. of: what it is of; bytes: its size."""

    out: Path
    of: str
    bytes: int


def run(options: ReportOptions, report: Report) -> Reported:
    """Write one page of HTML on what is at options.path, which is only read.

    Raises MissingError where nothing is there, BadInputError for what has no page, and
    WouldOverwriteError where options.out is anything but a report of the same thing.
    """
    path = resolve_path(options.path, Path(RUNS))
    if not path.exists():
        raise no_input(path)
    of, made = _find_maker(path)
    content = made()
    page.write_page(options.out, of, content)
    return Reported(options.out, of, len(content))


def _find_maker(path: Path) -> tuple[str, Callable[[], bytes]]:
    """Return what a path is, in words that stay the same, and what makes its page."""
    name = path.resolve().name
    if (path / SWEEP_FILE).is_file():
        return name_subject(path), lambda: make_page(path)
    if (path / STAGE_FILE).is_file():
        of = f"stage {name}"
        return of, lambda: page.page(f"Stage {name}", of, *_tell_stage(path))
    if (path / CAS_FILE).is_file():
        of = f"score {name}"
        return of, lambda: page.page("Classification Accuracy Score", of, *tell_score(path))
    if path.is_file():
        of = f"store {name}"
        return of, lambda: page.page(name, of, *_tell_store(path))
    raise BadInputError(
        f"{path} is no store, stage, sweep or directory of cdm eval cas",
        next="cdm report samples.h5, or cdm report runs/base",
    )


def _tell_stage(directory: Path) -> Iterator[Html]:
    file, weights = read_stage_file(directory), read_weights_metadata(directory)
    config, places = file.plan.stage, [Path(CURVE), directory / CURVE]
    digests = {said.get("sha256", "") for said in weights.values()}
    is_diffusion = isinstance(config, StageConfig)
    curves = find_curves(config, digests, places) if is_diffusion else iter(())
    yield from draw_stage_sections(directory, file, weights, curves)


def _tell_store(path: Path) -> Iterator[Html]:
    with open_store(path) as store:
        yield from tell_store(store)
