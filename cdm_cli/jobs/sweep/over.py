"""The same images over the points of a sweep, as Figure 7 of the paper: a row an image."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.pictures.beside import lay_side_by_side
from cdm_cli.jobs.pictures.shown import ShownImages, choose_shown
from cdm_cli.jobs.pictures.tiles import choose_scale, draw_sheet, encode_png
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sampling.parents import find_store_of
from cdm_cli.jobs.sweep.choice import Judged, name_value
from cdm_cli.jobs.sweep.point import KINDS, REAL, Kind

ROWS = 8  # images
MOST = 16  # points of one figure
SPLITS = {kind: split for split, kind in REAL.items()}


class Parent(NamedTuple):
    """A store that a sweep records as one of its inputs."""

    name: str
    digest: str


class Figure(NamedTuple):
    """A picture as PNG with its caption; without a picture the caption says why."""

    caption: str
    png: bytes | None


def draw_figures(
    out: Path, points: Sequence[Judged], axes: dict[str, Any], inputs: Mapping[str, Parent]
) -> Iterator[Figure]:
    """Yield one figure for each kind of conditioning: the same images over its points.

    axes: the values on other axes that the points of a figure over s have. inputs: the store that
    was upsampled under "lowres", that of --ref under "ref"; they are looked for beside the
    directory of the sweep and in the current one, and a figure has no inputs where they are not
    found. Where stores of points are gone, the caption says so.
    """
    for kind in KINDS:
        there = _select_points(points, kind, axes)
        if not there:
            continue
        caption = f"{kind}: the same images, " + _say_axis(there, axes)
        try:
            yield Figure(caption, _draw(out, there, kind, inputs))
        except CdmError as error:
            yield Figure(f"no picture of {kind}: {error.what}", None)


def _select_points(points: Sequence[Judged], kind: Kind, axes: dict[str, Any]) -> list[Judged]:
    """Return the points of a figure: over s where there are several, else over the other axes."""
    if kind == "none":
        return []
    family = (kind,) if kind in REAL.values() else (kind, "none")
    there = [point for point in points if point.augment in family]
    if not any(point.augment == kind for point in there):
        return []
    if len({point.s for point in there}) > 1:
        there = [point for point in there if point.axes == axes] or there
    return sorted(there, key=lambda point: point.s)[:MOST]


def _say_axis(there: Sequence[Judged], axes: dict[str, Any]) -> str:
    fixed = ", ".join(name_value(axis, value) for axis, value in axes.items())
    if len({point.s for point in there}) > 1:
        return f"over s ({fixed})" if fixed else "over s"
    return f"at s = {there[0].s}"


def _draw(out: Path, there: Sequence[Judged], kind: Kind, inputs: Mapping[str, Parent]) -> bytes:
    with ExitStack() as stack:
        paths = [out / Path(point.samples).name for point in there]
        opened = [stack.enter_context(open_store(path)) for path in paths]
        shown = [choose_shown(store, None, None, Silent()) for store in opened]
        heads = [_make_head(point, there) for point in there]
        given = _open_given(out, kind, inputs, stack)
        if given is not None:
            first, real = _choose_inputs(given, SPLITS.get(kind), shown[0].resolution)
            shown, heads = [first, *shown], ["input", *heads]
            if real is not None:
                shown, heads = [*shown, real], [*heads, "real"]
        sheet = lay_side_by_side(shown, heads, num=ROWS)
        return encode_png(draw_sheet(sheet, choose_scale(max(one.resolution for one in shown))))


def _make_head(point: Judged, there: Sequence[Judged]) -> str:
    if len({other.s for other in there}) > 1:
        return f"s = {point.s}"
    return "\n".join(name_value(axis, value) for axis, value in point.axes.items())


def _open_given(
    out: Path, kind: Kind, inputs: Mapping[str, Parent], stack: ExitStack
) -> Store | None:
    """Open the store that a kind was upsampled from, None where it is not found."""
    given = inputs.get("ref" if kind in REAL.values() else "lowres")
    if given is None:
        return None
    path = find_store_of(given.digest, given.name, [out.absolute().parent, Path()])
    return stack.enter_context(open_store(path)) if path else None


def _choose_inputs(
    store: Store, split: str | None, high: int
) -> tuple[ShownImages, ShownImages | None]:
    """Return what was upsampled, and of real images what they are."""
    part = store.parts[split or next(iter(store.parts))]
    low = max((side for side in part.resolutions if side < high), default=max(part.resolutions))
    first = choose_shown(store, split, low, Silent())
    real = split is not None and high in part.resolutions
    return first, choose_shown(store, split, high, Silent()) if real else None
