"""`cdm eval`: how good are samples, measured against real images, with everything said."""

import io
import json
from collections.abc import Sequence
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
from cdm_cli.jobs.judging.cost import cost
from cdm_cli.jobs.judging.images import ImageSet, collect, from_store
from cdm_cli.jobs.judging.panel import Panel, convention_of, open_panel, table_of_rows
from cdm_cli.jobs.judging.references import training_images
from cdm_cli.jobs.judging.result import EvalResult
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.rows import tell_part
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.table import MetricTable
from cdm_cli.names import OF_IMAGES
from cdm_cli.options.judging import EvalOptions, parse_metrics
from cdm_cli.report import Report

LEFT_OUT = "cas is not in all: it trains two classifiers, for hours; cdm eval cas does"
FIRST_ALONE = "nearest images are those of {store} alone"


NEAREST_PICTURE = Path("nearest.png")


MARK = "cdm_eval"


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
            "metrics": list(parse_metrics(options.metrics)),
            **cost(options, images, session),
        }


def _check_written(options: EvalOptions) -> None:
    """Raise WouldOverwriteError, or DiskError, for what would be written."""
    _check_out(options.out)
    written = [options.out] if options.out else []
    if "nn" in parse_metrics(options.metrics):
        written.append(_picture_path(options.out))
        _check_picture(written[-1])
    for path in written:
        check_room(path, 0)


def run_in(options: EvalOptions, session: Session) -> EvalResult:
    """Judge stores as one process of a job; the first one writes."""
    metrics, lenient = parse_metrics(options.metrics), "all" in options.metrics
    with ExitStack() as stack:
        images, *others = session.decide(
            lambda: _choose_all(options, stack, session.report), _fields_to_compare
        )
        rich = bool({*OF_IMAGES} & {*metrics})
        panel = open_panel(options.judge, images.resolution, session, features=rich)
        collector = collect(images, panel.judge.extractor, session, seed=options.seed)
        table = table_of_rows(panel, images, collector, metrics, options.seed, lenient=lenient)
        if lenient:
            table.note(LEFT_OUT)
        lines: list[dict[str, Any]] = []
        written: list[Path] = []
        if "nn" in metrics:
            lines, written = _look_nearby(options, panel, images, collector, table)
        if others:
            table = _with_others(options, others, panel, table)
        if options.out is not None:
            written.append(options.out)
            if session.world.leads:
                write_file_atomically(options.out, _encode(table, options.out))
    return EvalResult(options.compared, table, lines, written, options.against)


def _with_others(
    options: EvalOptions, others: Sequence[ImageSet], panel: Panel, first: MetricTable
) -> MetricTable:
    """Judge the other stores as the first was; return all numbers, and how they compare."""
    metrics = tuple(name for name in parse_metrics(options.metrics) if name != "nn")
    lenient = "all" in options.metrics
    path, *paths = _list_stores(options)
    tables = {path: first}
    for name, images in zip(paths, others, strict=True):
        collector = collect(images, panel.judge.extractor, panel.session, seed=options.seed)
        tables[name] = table_of_rows(
            panel, images, collector, metrics, options.seed, lenient=lenient
        )
    joined = join_tables(tables)
    if "nn" in parse_metrics(options.metrics):
        joined.note(FIRST_ALONE.format(store=path))
    if options.against is not None:
        compare_stores(joined, options.compared, options.against)
    return joined


def _list_stores(options: EvalOptions) -> list[Path]:
    """Return the stores that are judged, and behind them what they are compared with."""
    return [*options.compared, options.against] if options.against else [*options.compared]


def _choose_all(options: EvalOptions, stack: ExitStack, report: Report) -> list[ImageSet]:
    """Choose the images of every store: all of the resolution that the first one has."""
    first, *others = _list_stores(options)
    images = _choose_images(options, first, options.resolution, stack, report)
    for path in others:
        with open_store(path) as store:
            check_alike(options, images.resolution, store)
    return [
        images,
        *(_choose_images(options, path, images.resolution, stack, report) for path in others),
    ]


def _choose_images(
    options: EvalOptions, path: Path, resolution: int | None, stack: ExitStack, report: Report
) -> ImageSet:
    """Open a store, and choose the images that are judged."""
    store = stack.enter_context(open_store(path))
    images = from_store(store, options.split, resolution, options.num, options.seed)
    check_metrics(options, images)
    tell_part(store, options.split, report)
    return images


def _fields_to_compare(chosen: list[ImageSet]) -> dict[str, Any]:
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
        training = training_images(options.judge.ref, images.resolution, stack)
        val = next((found for found in panel.references if found.name == "val"), None)
        found = nearest.search_nearest(
            collector, training, val, panel.judge.extractor, panel.session
        )
        table.extend(
            nearest.nearest_rows(found, convention_of(images, panel.judge, options.seed), training)
        )
        path = _picture_path(options.out)
        if panel.session.world.leads:
            write_file_atomically(path, _png(nearest.draw_nearest(found, images, training)))
        return nearest.list_nearest(found, images, training), [path]


def _picture_path(out: Path | None) -> Path:
    return out.with_suffix(".png") if out else NEAREST_PICTURE


def _check_out(out: Path | None) -> None:
    """Refuse, before any work, an --out that is not ours to replace."""
    if out is not None and out.exists() and not (out.is_file() and _is_ours(out)):
        raise WouldOverwriteError(
            f"{out} exists and is no table of cdm eval", kept="it is untouched", next="another -o"
        )


def _check_picture(path: Path) -> None:
    """Refuse, before any work, to replace a picture that is not of nearest images."""
    if path.exists() and not (path.is_file() and _holds(path, MARK.encode())):
        raise WouldOverwriteError(
            f"{path} exists and is no picture of cdm eval nn",
            kept="it is untouched",
            next="another -o: the picture is named after the table",
        )


def _holds(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return mark in file.read(200)


def _png(picture: Image.Image) -> bytes:
    """Return a PNG that says, in its first bytes, that it is ours to replace."""
    note, held = PngInfo(), io.BytesIO()
    note.add_text(MARK, "nearest training images")
    picture.save(held, "PNG", pnginfo=note)
    return held.getvalue()


def _is_ours(path: Path) -> bool:
    return _holds(path, MARK.encode() if path.suffix == ".json" else b"metric,value,uncertainty")


def _encode(table: MetricTable, out: Path) -> bytes:
    if out.suffix == ".csv":
        return table.to_csv().encode()
    return json.dumps({MARK: 1, **table.to_json()}, indent=1, allow_nan=False).encode()
