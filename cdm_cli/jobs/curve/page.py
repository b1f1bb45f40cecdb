"""What a page says of a curve: the FID of each checkpoint, and how it stands."""

from collections.abc import Collection, Iterator
from pathlib import Path

from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.config import StageConfig
from cdm_cli.errors import CdmError
from cdm_cli.jobs.curve.table import (
    LIMIT,
    PLOT,
    CurveFile,
    compare_points,
    make_table,
    name_point,
)
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.runtime.same_stage import is_digest_of
from cdm_cli.names import CURVE_FILE


def find_curves(
    config: StageConfig, digests: Collection[str], places: Collection[Path]
) -> Iterator[Html]:
    """Yield a section for each curve in these places that is of this stage.

    digests: of the weights that the stage has; a curve of none of them is of another training.
    """
    for place in dict.fromkeys(place.resolve() for place in places):
        file = _read(place)
        if file is None or not file.points or not is_digest_of(config, file.identity.get("stage")):
            continue
        if {point.saved.sha256 for point in file.points} & {*digests}:
            yield _make_section(place, file)


def _read(place: Path) -> CurveFile | None:
    try:
        return read_settings(CurveFile, place / CURVE_FILE, LIMIT)
    except CdmError:
        return None


def _make_section(place: Path, file: CurveFile) -> Html:
    found, table = compare_points(file.points), make_table(file.points)
    good = {name_point(one.point) for one in found.good}
    lines, plot = table.lines(), page.read_picture(place / PLOT)
    return page.section(
        "Checkpoints",
        page.paragraph(found.conclude(name_point)),
        page.picture(plot, found.entitle(name_point)),
        page.table(table.header(), lines, [bool(good & {*line}) for line in lines]),
        page.notes(table.gather_notes()),
    )
