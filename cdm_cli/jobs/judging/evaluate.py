"""`cdm eval`: how good are samples, measured against real images, with everything said."""

import io
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cdm_cli.data.disk import check_room
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.data.store import open_store
from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.judging import nearest
from cdm_cli.jobs.judging.against import compare_stores, join_tables
from cdm_cli.jobs.judging.check import check_alike, check_metrics
from cdm_cli.jobs.judging.cost import estimate_eval
from cdm_cli.jobs.judging.images import ImageSet, collect, from_store
from cdm_cli.jobs.judging.panel import Panel, make_table, open_panel, state_convention
from cdm_cli.jobs.judging.real import open_real
from cdm_cli.jobs.judging.references import open_training_images
from cdm_cli.jobs.judging.result import EvalResult
from cdm_cli.jobs.runtime.identity import advise_another
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.store_images import tell_kind, tell_part
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.table import MetricTable
from cdm_cli.names import OF_IMAGES
from cdm_cli.options.judging import EvalOptions
from cdm_cli.report import Report

LEFT_OUT = "cas is not in all, for it trains two classifiers: cdm eval cas does"
THEMSELVES = "images of {images} are among those of {reference}: compared with themselves"
FIRST_ALONE = "nearest images are those of {store} alone"
NEAREST_PICTURE = Path("nearest.png")
MARK = "cdm_eval"
CSV_MARK = "metric,value,uncertainty"


def run(options: EvalOptions, report: Report) -> EvalResult:
    """Judge a store and write the table and the picture of nearest images where asked.

    Raises UsageError, MissingError, MismatchError, BadInputError, and WouldOverwriteError for
    an `out` that is not a table of ours.
    """
    _check_written(options)
    return start_job(run_in, options, options.judge.compute, report)


def plan(options: EvalOptions, report: Report) -> dict[str, object]:
    """Return what `run` would judge, and how long that takes; nothing is judged or written.

    Raises what `run` raises before it judges.
    """
    _check_written(options)
    session = plan_session(options.judge.compute, report)
    with ExitStack() as stack:
        images = _choose_all(options, stack, report)
        told = {"out": str(options.out)} if options.out else {}
        return {
            **told,
            "metrics": list(options.names),
            **estimate_eval(options, images, session),
        }


def _check_written(options: EvalOptions) -> None:
    """Raise WouldOverwriteError, or DiskError, for what would be written."""
    if options.out:
        mark = MARK if options.out.suffix == ".json" else CSV_MARK
        _check_ours(options.out, mark, "table of cdm eval", advise_another(options.out))
    if "nn" in options.names:
        picture = _name_picture(options.out)
        another = advise_another(options.out or picture.with_suffix(".csv"))
        _check_ours(
            picture, MARK, "picture of cdm eval nn",
            f"{another}: the picture is named after the table",
        )  # fmt: skip


def _check_ours(path: Path, mark: str, what: str, next: str) -> None:
    """Refuse, before any work, to replace a file without our mark, or to fill a full disk."""
    ours = not path.exists()
    if path.is_file():
        with path.open("rb") as file:
            ours = mark.encode() in file.read(200)
    if not ours:
        raise WouldOverwriteError(
            f"{path} exists and is no {what}", kept="it is untouched", next=next
        )
    check_room(path, 0)


def run_in(options: EvalOptions, session: Session) -> EvalResult:
    """Judge stores as one process of a job; the first one writes."""
    with ExitStack() as stack:
        chosen = session.decide(lambda: _choose_all(options, stack, session.report), _list_compared)
        rich = bool({*OF_IMAGES} & {*options.names})
        panel = open_panel(options.judge, chosen[0].resolution, session, features=rich)
        tables: dict[Path, MetricTable] = {}
        lines: list[dict[str, Any]] = []
        written: list[Path] = []
        for path, images in zip(_list_stores(options), chosen, strict=True):
            collector = collect(images, panel.judge.extractor, session, seed=options.seed)
            tables[path] = make_table(
                panel, images, collector, options.names, options.seed, lenient=options.lenient
            )
            _note_themselves(images, panel, tables[path])
            if "nn" in options.names and images is chosen[0]:
                lines, written = _look_nearby(options, panel, images, collector, tables[path])
        table = _join(options, tables)
        if options.out is not None:
            written.append(options.out)
            if session.world.leads:
                write_file_atomically(options.out, _encode(table, options.out))
    return EvalResult(options.compared, table, lines, written, options.against)


def _note_themselves(images: ImageSet, panel: Panel, table: MetricTable) -> None:
    """Say where real images are judged against the split, or samples the store, that they are of.

    A store has one digest for all of its splits.
    """
    part = images.name.rpartition(":")[2]
    for one in panel.references:
        if one.digest == images.digest and one.name in (part, "ref"):
            name = "--ref" if one.name == "ref" else one.name
            table.note(THEMSELVES.format(images=images.name, reference=name))


def _join(options: EvalOptions, tables: Mapping[Path, MetricTable]) -> MetricTable:
    """Return the numbers of all stores, and how they compare where that is asked for."""
    first, *others = tables
    if options.lenient:
        tables[first].note(LEFT_OUT)
    if not others:
        return tables[first]
    joined = join_tables(tables)
    if "nn" in options.names:
        joined.note(FIRST_ALONE.format(store=first))
    if options.against is not None:
        compare_stores(joined, options.compared, options.against)
    return joined


def _list_stores(options: EvalOptions) -> list[Path]:
    """Return the stores that are judged, and behind them what they are compared with."""
    return [*options.compared, options.against] if options.against else [*options.compared]


def _choose_all(options: EvalOptions, stack: ExitStack, report: Report) -> list[ImageSet]:
    """Choose the images of every store: all of the resolution that the first one has."""
    chosen: list[ImageSet] = []
    resolution = options.resolution
    for path in _list_stores(options):
        store = stack.enter_context(open_store(path))
        if chosen:
            resolution = chosen[0].resolution
            check_alike(options, resolution, store)
        images = from_store(store, options.split, resolution, options.num, options.seed)
        check_metrics(options, images)
        tell_part(store, options.split, report)
        chosen.append(images)
    with open_real(options.judge.ref) as real:
        if real.store is not None:
            tell_kind(real.store, report)
    return chosen


def _list_compared(chosen: list[ImageSet]) -> dict[str, Any]:
    """Return what must be equal in every process."""
    images = chosen[0]
    same = {"samples": images.digest, "num": images.num, "resolution": images.resolution}
    return same | {"others": [(other.digest, other.num) for other in chosen[1:]]}


def _look_nearby(
    options: EvalOptions,
    panel: Panel,
    images: ImageSet,
    collector: Collector,
    table: MetricTable,
) -> tuple[list[dict[str, Any]], list[Path]]:
    with ExitStack() as stack:
        training = open_training_images(options.judge.ref, images.resolution, stack)
        val = next((found for found in panel.references if found.name == "val"), None)
        found = nearest.search_nearest(
            collector, training, val, panel.judge.extractor, panel.session
        )
        table.extend(
            nearest.make_nearest_rows(
                found, state_convention(images, panel.judge, options.seed), training
            )
        )
        path = _name_picture(options.out)
        if panel.session.world.leads:
            write_file_atomically(
                path, _encode_picture(nearest.draw_nearest(found, images, training))
            )
        return nearest.list_nearest(found, images, training), [path]


def _name_picture(out: Path | None) -> Path:
    return out.with_suffix(".png") if out else NEAREST_PICTURE


def _encode_picture(picture: Image.Image) -> bytes:
    """Return a PNG that says, in its first bytes, that it is ours to replace."""
    note, held = PngInfo(), io.BytesIO()
    note.add_text(MARK, "nearest training images")
    picture.save(held, "PNG", pnginfo=note)
    return held.getvalue()


def _encode(table: MetricTable, out: Path) -> bytes:
    if out.suffix == ".csv":
        return table.to_csv().encode()
    return json.dumps({MARK: 1, **table.to_json()}, indent=1, allow_nan=False).encode()
