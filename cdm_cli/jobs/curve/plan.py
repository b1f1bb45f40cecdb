"""What `eval checkpoints` judges: saved states and samples, decided from headers and flags."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cdm_cli.cascade.checkpoint import find_weights_file
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import CHECKPOINTS, is_complete, list_checkpoints
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.data.disk import check_room_in
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.jobs.curve.table import SavedWeights, read_curve
from cdm_cli.jobs.judging.header import identify_judge, open_reference
from cdm_cli.jobs.judging.probe_score import fill_in_steps
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling.fitting import advise_store, starts_from
from cdm_cli.jobs.sampling.headers import Header, describe_lowres_misfit, read_header
from cdm_cli.jobs.sampling.judged_on import make_probe, open_generated
from cdm_cli.jobs.sampling.probe import Probe
from cdm_cli.jobs.sampling.store_images import choose_part
from cdm_cli.names import RUNS
from cdm_cli.options.judging import CurveOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class CurveWork:
    """A stage, the samples it is judged by, and its saved states in the order of steps."""

    header: Header
    probe: Probe
    states: tuple[SavedWeights, ...]


def plan_work(options: CurveOptions, stack: ExitStack, report: Report) -> CurveWork:
    """Decide all that headers and flags decide. The stack keeps the real images open.

    Raises UsageError, MissingError and MismatchError for what does not fit, DiskError, and
    WouldOverwriteError where the directory is of another curve.
    """
    header = read_header(find_stage(options.stage, Path(RUNS)))
    states = find_states(header.directory, options.weights)
    generated = open_generated(options.lowres, header, stack, "--lowres", options.num, report)
    store = None if generated else _open_real_images(options, header, stack)
    identify_judge(options.judge)
    open_reference(options.judge.ref, header, stack, report)
    sampling = fill_in_steps(header.config, options.sampling)
    probe = make_probe(header, store, options.num, options.s, sampling, ("--num", "--s"), generated)
    check_room_in(options.out)
    known = {"stage": compute_config_digest(header.config), **probe.identity}
    read_curve(options.out, known, header.config, whole=False)
    return CurveWork(header, probe, states)


def find_states(directory: Path, weights: Sequence[str]) -> tuple[SavedWeights, ...]:
    """Return the states that names mean, "all" being every checkpoint, in the order of steps.

    Raises MissingError where there is none, or not one that is named; UsageError for a word that
    names no weights.
    """
    there = [path.name for path in list_checkpoints(directory)] if "all" in weights else []
    names = dict.fromkeys(name for word in weights for name in (there if word == "all" else [word]))
    found = [_find_state(directory, name, listed=name not in weights) for name in names]
    states = [state for state in found if state is not None]
    if not states:
        raise MissingError(
            f"{directory} has no checkpoint", next="cdm train, or --weights ema for what it has"
        )
    return tuple(sorted(states, key=lambda state: (state.step, state.weights)))


def _find_state(directory: Path, name: str, *, listed: bool) -> SavedWeights | None:
    """Return a state, None for one that was listed and that a training removed since."""
    try:
        path = find_weights_file(directory, name)
        metadata = read_metadata(path)
    except MissingError:
        if not listed or is_complete(directory / CHECKPOINTS / name):
            raise
        return None
    try:
        return SavedWeights(weights=name, step=int(metadata["step"]), sha256=metadata["sha256"])
    except (KeyError, ValueError):
        raise BadInputError(
            f"{path} does not say of which step it is", next="leave it out of --weights"
        ) from None


def _open_real_images(options: CurveOptions, header: Header, stack: ExitStack) -> Store | None:
    """Open the real images that a super-resolution stage enlarges; a base stage needs none."""
    if header.config.kind == "base":
        return None
    ref = options.judge.ref
    if ref.suffix == ".npz":
        raise UsageError(
            f"--ref {ref}: a super-resolution stage enlarges real images of a store",
            next="--ref data.h5, or --lowres with generated ones",
        )
    store = stack.enter_context(open_store(ref))
    store.require_finished()
    reason = describe_lowres_misfit(header, store, choose_part(store, None)[1])
    if reason:
        raise MismatchError(
            f"{header.directory} and {ref} do not fit: {reason}",
            next=advise_store(
                "--ref", ref, partial(starts_from, header), "another --ref", kind="prepared"
            ),
        )
    return store
