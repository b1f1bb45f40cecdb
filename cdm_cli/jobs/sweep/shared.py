"""What all points of a sweep share: room on the disk, and one loading of the stage."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from cdm_cli.cascade.stagefile import compute_stage_digest
from cdm_cli.data.disk import check_room_in, make_directory
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.judging.panel import Panel, open_panel
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.cost import count_sample_bytes
from cdm_cli.jobs.sampling.numerics import check_same_numerics
from cdm_cli.jobs.sampling.parents import find_stage_digest
from cdm_cli.jobs.sampling.ready import (
    ReadyStage,
    check_output,
    make_stage_ready,
    read_numerics,
    take_weights,
)
from cdm_cli.jobs.sampling.work import Work
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.options.sweeping import SweepOptions


def check_points(points: Sequence[Point], session: Session) -> None:
    """Check that points can be made or continued, and that the disk has room for all together.

    Raises MissingError, WouldOverwriteError and DiskError.
    """
    for point in points:
        if point.samples.exists():
            check_output(point.work, point.samples, session)
    if points:
        check_room_in(points[0].out, count_new_bytes(points))


def count_new_bytes(points: Sequence[Point]) -> int:
    """Return the bytes of the stores that are not there yet; each is of its final size at once."""
    return sum(
        len(point.work.samples) * count_sample_bytes(point.work.header.config)
        for point in points
        if not point.samples.exists()
    )


@dataclass
class Loaded:
    """The stage of a sweep on its device. weights: the name of those that it has now.

    digests: by the name of weights, the digest that the stage had with them when first asked for.
    """

    ready: ReadyStage
    weights: str
    digests: dict[str, str]

    def find_digest(self, work: Work) -> str:
        """Return the digest of the stage with the weights of a work."""
        weights = work.sampling.weights
        if weights not in self.digests:
            self.digests[weights] = find_stage_digest(work.header, weights)
        return self.digests[weights]

    def switch_to(self, work: Work) -> ReadyStage:
        """Read the weights of a work into the stage, in place, and return it: nothing is compiled.

        Raises StoppedError where the file holds other weights than when they were first asked for.
        """
        header, weights = work.header, work.sampling.weights
        if weights == self.weights:
            return self.ready
        taken = take_weights(self.ready.stage, header.directory, weights)
        digest = compute_stage_digest(header.config, taken)
        if digest != self.find_digest(work):
            raise StoppedError(
                f"the {weights} weights of {header.directory} were replaced meanwhile",
                kept="what is judged is kept",
                next="another -o for the new ones",
            )
        stage = self.ready.stage.with_digest(digest)
        self.ready, self.weights = replace(self.ready, stage=stage), weights
        return self.ready


def open_panel_and_stage(
    options: SweepOptions, points: Sequence[Point], session: Session
) -> tuple[Panel, Loaded]:
    """Open the judge with the statistics of the real images, and load the stage.

    A process that is alone does both at a time: one waits for the disk, or for what is compiled,
    while the other computes. Raises what `open_panel` raises, else what `load_stage_for` raises; a
    directory that was made for the points is removed then.
    """
    out = points[0].out
    made = not out.exists()
    session.lead(lambda: make_directory(out))
    try:
        return _open_side_by_side(options, points, session)
    except BaseException:
        if made and session.world.leads:
            with suppress(OSError):
                out.rmdir()
        raise


def _open_side_by_side(
    options: SweepOptions, points: Sequence[Point], session: Session
) -> tuple[Panel, Loaded]:
    resolution = points[0].work.header.config.model.resolution
    if session.world.size > 1:  # whose processes agree in one order
        panel = open_panel(options.judge, resolution, session, features=False)
        return panel, load_stage_for(points, session)
    with ThreadPoolExecutor(1, "cdm-load") as thread:
        loading = thread.submit(load_stage_for, points, session)
        panel = open_panel(options.judge, resolution, session, features=False)
        return panel, loading.result()


def load_stage_for(points: Sequence[Point], session: Session) -> Loaded:
    """Load the stage once for all points, with the numerics of the samples that are there.

    Raises WouldOverwriteError where samples that are there were made with other numerics.
    """
    begun = [point for point in points if read_numerics(point.samples)]
    first = (begun or list(points))[0]
    ready = make_stage_ready(first.work, first.samples, session)
    for point in begun:
        check_same_numerics(read_numerics(point.samples) or {}, ready.numerics, point.samples)
    weights = first.work.sampling.weights
    return Loaded(ready, weights, {weights: ready.stage.digest})
