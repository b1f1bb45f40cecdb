"""Samples as arrays, and from arrays: the same as a store would hold, to the bit.

Blocks, batches and noise are those of `fill_store`, so that neither where samples go to nor where
they come from changes one.
"""

from contextlib import ExitStack

import numpy as np

from cdm_cli.cascade.conditioning import check_s
from cdm_cli.cascade.fast import make_fast
from cdm_cli.cascade.stage import Stage
from cdm_cli.errors import BadInputError, MismatchError, UsageError
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.jobs.sampling.defaults import fill_defaults
from cdm_cli.jobs.sampling.fill import Arrays, Engine, Meter
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.numerics import choose_numerics
from cdm_cli.jobs.sampling.schedule_file import choose_chain
from cdm_cli.jobs.sampling.store_images import ImageArrays
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.jobs.sampling.work import Work, choose_kept_times
from cdm_cli.options.sampling import UpsampleOptions


def plan_in_memory(header: Header, given: ImageArrays, options: UpsampleOptions) -> Work:
    """Decide all that `upsample.plan_work` decides, of images in memory for a store.

    Raises UsageError for an s that the stage does not know and for no images, MismatchError where
    they are not what it starts from, BadInputError for labels that are none of its classes.
    """
    if header.config.conditioning is None:
        raise MismatchError(
            f"{header.directory} is a base stage: it starts from nothing",
            next="sample, or name a super-resolution stage",
        )
    options = fill_defaults(options, header, header.default)
    s = check_s(header.config, options.s, options.augment)
    augment = options.augment or "non-truncated"
    if augment == "truncated" and s and s not in given.z:
        raise MismatchError(f"there is no z_s for s = {s}", next="sample with keep_s, or read z")
    _check_fits(header, given, s if augment == "truncated" else 0)
    keep = choose_kept_times(options.keep_s)
    return Work(
        command="upsample",
        equivalent_command="",
        sampling=options.sampling,
        header=header,
        chain=choose_chain(header, options.sampling, keep),
        num=len(given.images),
        samples=range(len(given.images)),
        make_inputs=Conditioner(header, given, s, augment, options.sampling.seed).make_inputs,
        classes=header.classes,
        fields={"s": s, "augment": augment},
        keep=keep,
    )


def _check_fits(header: Header, given: ImageArrays, s: int) -> None:
    if not len(given.images):
        raise UsageError("there are no images")
    side, model = header.conditioning.resolution, header.config.model
    shape, images = (len(given.ids), side, side, model.channels), given.images
    for name, array, dtype in [("images", images, np.uint8), ("z_s", given.z.get(s), np.float16)]:
        if array is not None and (array.shape != shape or array.dtype != dtype):
            raise MismatchError(
                f"{name} are {array.dtype} {list(array.shape)}, {header.directory} starts from "
                f"{np.dtype(dtype)} {list(shape)}",
                next="cdm_cli.read gives such arrays",
            )
    if model.num_classes and not 0 <= given.labels.min() <= given.labels.max() < model.num_classes:
        raise BadInputError(
            f"labels outside 0..{model.num_classes - 1}, the classes of {header.directory}",
            next="labels are places among the classes of the stage",
        )


def sample_in_memory(work: Work, stage: Stage, session: Session) -> Arrays:
    """Return what the datasets of the store would hold, by name.

    stage: loaded onto the device of the session, which is of one process. Raises MemoryFloorError.
    """
    size, evaluations = choose_block_size(work.num), work.num * work.chain.evaluations
    chosen = choose_numerics(work.header.config, session, evaluations, most_at_once=size)
    fast = make_fast(stage, compiled=chosen.compiled)
    engine = Engine(fast, work.chain, work.sampling.seed, chosen.batch_size, work.keep)
    with (
        ExitStack() as stack,
        session.report.track(work.command, evaluations, "evaluations") as advance,
    ):
        stack.callback(fast.release)
        meter = Meter(advance, Stop(), work.num, str)
        blocks = [
            engine.make_block(work.make_inputs(range(at, min(at + size, work.num))), meter)
            for at in range(0, work.num, size)
        ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
