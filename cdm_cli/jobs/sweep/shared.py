"""What all points of a sweep share: room on the disk, and one loading of the stage."""

from collections.abc import Sequence
from dataclasses import replace

from cdm_cli.cascade.stagefile import digest_with
from cdm_cli.data.disk import check_room, existing
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.cost import bytes_per_sample
from cdm_cli.jobs.sampling.make import Ready, Work, check_output, make_ready, numerics_of
from cdm_cli.jobs.sampling.numerics import check_same_numerics, take_weights
from cdm_cli.jobs.sampling.parents import stage_digest
from cdm_cli.jobs.sweep.point import Point


def check_points(points: Sequence[Point], session: Session) -> None:
    """See that points can be made or continued, and that there is room for all together."""
    size = 0
    for point in points:
        if point.samples.exists():
            check_output(point.work, point.samples, session)
        else:
            size += len(point.work.rows) * bytes_per_sample(point.work.header.config)
    if points:
        check_room(existing(points[0].out) / "points", size)


def ready_for(points: Sequence[Point], session: Session) -> Ready:
    """Load the stage once, with the numerics of the samples that are there."""
    begun = [point for point in points if numerics_of(point.samples)]
    first = (begun or list(points))[0]
    ready = make_ready(first.work, first.samples, session)
    for point in begun:
        check_same_numerics(numerics_of(point.samples) or {}, ready.numerics, point.samples)
    return ready


def with_weights(ready: Ready, work: Work) -> Ready:
    """Give the stage the weights of a point, in place: what was compiled or recorded stays."""
    header, weights = work.header, work.sampling.weights
    if ready.stage.digest == stage_digest(header, weights):
        return ready
    taken = take_weights(ready.stage, header.directory, weights)
    digest = digest_with(header.config, taken)
    return replace(ready, stage=ready.stage.identified(digest))
