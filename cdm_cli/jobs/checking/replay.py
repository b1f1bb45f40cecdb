"""`cdm verify --replay K`: samples made again from their provenance, and compared.

A digest shows that a file is what was written; a replay shows that it is what the stage makes. The
compute batches that hold the chosen samples are made again whole, because the shape of a batch
and the other samples in it decide the last bits; all samples of these batches are compared.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.stage import Stage
from cdm_cli.data.blocks import Block
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import BadInputError, CdmError, MemoryFloorError, quote
from cdm_cli.jobs.checking.origin import HowComputed, Origin, read_origin
from cdm_cli.jobs.checking.replay_plan import (
    ReplayBatch,
    check_chain,
    choose_places,
    find_batches,
    find_inputs,
    find_making_stage,
)
from cdm_cli.jobs.runtime.device import describe_build, make_deterministic, name_device_class
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.jobs.runtime.session import Session, plan_session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.fill import Engine, Meter
from cdm_cli.jobs.sampling.headers import Header, read_header
from cdm_cli.jobs.sampling.numerics import Numerics
from cdm_cli.jobs.sampling.ready import load_fast_stage
from cdm_cli.jobs.sampling.work import MakeInputs
from cdm_cli.options.files import VerifyOptions
from cdm_cli.options.sampling import Compute, Sampling
from cdm_cli.report import Report
from cdm_cli.units import format_count

TOLERANCE = {"fp32": 8, "bf16": 64}  # of 255, of any pixel, where device or build are others
SHOWN = 20
HALF = 127.5  # uint8 levels for 1.0 of a state z_s


@dataclass(frozen=True)
class Replayed:
    """The result of a replay. asked, compared, identical: how many samples.

    stage: the one that made the samples again. largest: the largest difference of any pixel, in
    levels of 255; tolerance: the difference that is allowed; why: the reason. differing: one row
    for each sample beyond tolerance, at most 20.
    """

    stage: str
    asked: int
    compared: int
    identical: int
    largest: int
    tolerance: int
    why: str
    differing: list[dict[str, object]]

    @property
    def sentence(self) -> str:
        """The end of the line that `cdm verify` prints where no sample differs beyond tolerance."""
        same = f"; {self.identical} of {format_count(self.compared, 'sample')} made again the same"
        return same if self.largest == 0 else f"{same}, the others within {self.largest} of 255"

    def failure(self, path: Path) -> CdmError | None:
        """Return BadInputError naming the first samples beyond tolerance, None where all fit."""
        if not self.differing:
            return None
        named = ", ".join(str(row["id"]) for row in self.differing[:5])
        return BadInputError(
            f"{path}: samples that its provenance does not make: ids {named} "
            f"({self.compared - self.identical} of {self.compared} compared differ, by up to "
            f"{self.largest} of 255; {self.tolerance} are allowed)",
            kept="the file was left as it is",
            next="do not trust it; make it again under another name",
        )


def plan_replay(
    store: Store, options: VerifyOptions, opened: ExitStack, report: Report
) -> Callable[[], Replayed]:
    """Check that samples can be made again; return the function that makes and compares them.

    It makes options.replay samples, and all that share their batches. opened: keeps the store that
    was upsampled open. Raises UsageError where no stage made the store or it has fewer samples,
    MissingError and MismatchError for stage and lowres, BadInputError for a provenance that does
    not say enough: all before a block is read.
    """
    origin, part = read_origin(store), store.parts[""]
    chosen = choose_places(part.num, options.replay or 1, options.seed, store.path)
    found = find_making_stage(store, origin.how_made, options.model)
    header = read_header(found.directory)
    chain = check_chain(header.config, origin.how_made, read_identity(store.provenance), store.path)
    session = plan_session(Compute(device=options.device), report)
    make_inputs = find_inputs(store, origin.how_made, header, options, opened)

    def replay() -> Replayed:
        make_deterministic(session.device)
        groups = find_batches(part, chosen, origin)
        total = sum(len(batch.rows) for batch in groups)
        where = f"{found.directory} ({found.weights})"
        report.say(
            f"replay: {format_count(total, 'sample')} in {format_count(len(groups), 'batch')}, "
            f"by {where} on {session.device}"
        )
        forms = StageForms(header, found.weights, origin, chain, session)
        return _compare(part, groups, forms, make_inputs, len(chosen), where)

    return replay


class StageForms:
    """The stage in each of the forms that the store was computed with, loaded when needed."""

    def __init__(
        self, header: Header, weights: str, origin: Origin, chain: Chain, session: Session
    ) -> None:
        self._header, self._weights, self._origin = header, weights, origin
        self.chain, self.session = chain, session
        self._stages: dict[tuple[str, bool], Stage] = {}

    def load_engine(self, numerics: HowComputed) -> Engine:
        """Return the engine that makes batches as those of the store were made.

        Raises BadInputError where the weights do not have the digest that the header tells.
        """
        how = self._origin.how_made
        key = numerics.precision, numerics.compiled and self.is_exact(numerics)
        if key not in self._stages:
            now = Numerics(numerics.batch_size, *key, name_device_class(self.session.device), "")
            sampling = Sampling(weights=self._weights)
            stage = load_fast_stage(self._header, sampling, now, self.session)
            if stage.digest != how.stage:
                raise BadInputError(
                    f"{self._header.directory} does not have the digest that its header tells",
                    next=f"cdm verify {quote(self._header.directory)}",
                )
            self._stages[key] = stage
        return Engine(self._stages[key], self.chain, how.seed, numerics.batch_size, how.keep_s)

    def is_exact(self, numerics: HowComputed) -> bool:
        """Tell whether this device and build make the same bits as those that made the samples."""
        here = name_device_class(self.session.device), describe_build(self.session.device)
        return (numerics.device, numerics.build) == here


def _compare(
    part: Part,
    groups: list[ReplayBatch],
    forms: StageForms,
    make_inputs: MakeInputs,
    asked: int,
    stage: str,
) -> Replayed:
    num = sum(len(batch.rows) for batch in groups)
    total = num * forms.chain.evaluations
    identical, largest, differing = 0, 0, list[dict[str, object]]()
    with Stop() as stop, forms.session.report.track("replay", total, "evaluations") as advance:
        meter = Meter(advance, stop, num, lambda: "the store was only read")
        for batch in groups:
            engine = forms.load_engine(batch.numerics)
            allowed = choose_tolerance(batch.numerics, forms)
            replayed = _replay_batch(engine, make_inputs, batch.rows, meter)
            levels = measure_pixel_differences(_read_stored(part, batch), replayed)
            identical += int((levels == 0).sum())
            largest = max(largest, int(np.ceil(levels.max())))
            differing += _list_differing(part, batch, levels, allowed)
    exact = all(forms.is_exact(batch.numerics) for batch in groups)
    return Replayed(
        stage=stage,
        asked=asked,
        compared=num,
        identical=identical,
        largest=largest,
        tolerance=max(choose_tolerance(batch.numerics, forms) for batch in groups),
        why="same device and build: every bit" if exact else _explain_tolerance(groups, forms),
        differing=differing[:SHOWN],
    )


def _explain_tolerance(groups: list[ReplayBatch], forms: StageForms) -> str:
    was = next(batch.numerics for batch in groups if not forms.is_exact(batch.numerics))
    return f"made on {was.device} ({was.build or 'build not told'}), which rounds otherwise"


def choose_tolerance(numerics: HowComputed, forms: StageForms) -> int:
    """Return by how many of 255 a pixel may differ: 0 where the same bits are expected."""
    return 0 if forms.is_exact(numerics) else TOLERANCE.get(numerics.precision, 64)


def _replay_batch(engine: Engine, make_inputs: MakeInputs, rows: range, meter: Meter) -> Block:
    try:
        return engine.make_block(make_inputs(rows), meter)
    except torch.OutOfMemoryError:
        raise MemoryFloorError(
            f"--replay: a compute batch of {format_count(engine.batch_size, 'sample')} does not "
            f"fit into the memory of {engine.stage.device}",
            next="a device like the one that made the store",
        ) from None


def _read_stored(part: Part, batch: ReplayBatch) -> Block:
    """Return what the store holds, its block checked once more as it is read."""
    block, start = part.read_checked(batch.block), part.list_rows(batch.block).start
    rows = slice(batch.rows.start - start, batch.rows.stop - start)
    return {name: array[rows] for name, array in block.items()}


def measure_pixel_differences(stored: Block, replayed: Block) -> np.ndarray:
    """Return the largest difference of each sample, float64 [n], in levels of uint8.

    Differences of z_s, in [-1, 1], count times 127.5. A sample of another id or label, or with a
    value that is not finite, counts 255.
    """
    worst = np.zeros(len(stored["ids"]))
    for name, array in stored.items():
        apart = np.abs(array.astype(np.float64) - replayed[name].astype(np.float64))
        apart = apart.reshape(len(worst), -1).max(axis=1)
        if name.startswith("z/"):
            apart = apart * HALF
        elif not name.startswith("images/"):
            apart = np.where(apart > 0, np.inf, 0.0)
        worst = np.maximum(worst, apart)
    return np.where(np.isfinite(worst), worst, 255.0)


def _list_differing(
    part: Part, batch: ReplayBatch, levels: np.ndarray, allowed: int
) -> list[dict[str, object]]:
    return [
        {"row": row, "id": int(part.ids[row]), "difference": float(level)}
        for row, level in zip(batch.rows, levels.tolist(), strict=True)
        if level > allowed
    ]
