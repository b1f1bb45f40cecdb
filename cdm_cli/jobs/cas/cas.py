"""`cdm eval cas`: the Classification Accuracy Score (Ravuri & Vinyals 2019; paper, Table 1b).

A classifier that saw samples alone is tested on real validation images; another one, of the same
recipe, that saw as many real training images says what the score would be for perfect samples.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cdm_cli.data.durable import check_room, existing
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError, MissingError
from cdm_cli.jobs.cas.cost import cost
from cdm_cli.jobs.cas.files import (
    CAS_FILE,
    cas_file,
    check_free,
    claim,
    reference_directory,
    writable,
)
from cdm_cli.jobs.cas.plan import TrainingSet, Work, key_of, planned
from cdm_cli.jobs.cas.report import CasResult, reported
from cdm_cli.jobs.cas.training import (
    OUTCOME,
    Outcome,
    kept_outcome,
    outcome_of,
    remove_checkpoints,
)
from cdm_cli.jobs.judging.images import Place
from cdm_cli.jobs.runtime.device import pick_device
from cdm_cli.jobs.runtime.launch import check_processes
from cdm_cli.jobs.runtime.session import agreed, check_shared, joined, led, started
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.lock import held
from cdm_cli.options.judging import CasOptions
from cdm_cli.report import Report


@contextmanager
def _stores(options: CasOptions) -> Generator[tuple[Store, Store]]:
    """Open the samples and the reference, which must be prepared data."""
    ref = options.ref
    if not ref.exists():
        raise MissingError(
            f"--ref {ref} does not exist", next="cdm prepare makes data.h5 from real images"
        )
    if ref.suffix == ".npz":
        raise MismatchError(
            f"--ref {ref}: cas needs real images to train on and to test on, train and val",
            next="cdm prepare SRC --val SRC, then --ref data.h5",
        )
    with open_store(options.store) as store, open_store(ref) as data:
        yield store, data


def plan(options: CasOptions, report: Report) -> dict[str, object]:
    """Return what `run` would train and cost; nothing is written."""
    device = pick_device(options.compute.device)
    with _stores(options) as (store, ref):
        work = planned(options, store, ref, device)
        check_free(options.out, work)
        check_room(existing(options.out) / CAS_FILE, 0)
        check_processes(options, options.compute)
        at = {"samples": options.out / "samples", "real": reference_directory(ref.path, work)}
        sets = (work.samples, work.real)
        done = [kept_outcome(at[each.name], key_of(work, each), report) for each in sets]
        return {"out": options.out, **cost(work, device, done.count(None))}


def run(options: CasOptions, report: Report) -> CasResult:
    """Train, test and write the directory; the same command continues, or ends at once.

    Raises what `planned`, `claim` and `outcome_of` raise.
    """
    return started(run_in, options, options.compute, report)


def run_in(options: CasOptions, report: Report, world: World) -> CasResult:
    """Score as one process of a world; the first one writes."""
    out = options.out
    with joined(options.compute, world) as (world, device), ExitStack() as stack:

        def begun() -> Work:
            store, ref = stack.enter_context(_stores(options))
            return planned(options, store, ref, device)

        work = agreed(world, begun, lambda work: cas_file(work).deciding())
        check_shared(world, out)
        led(world, lambda: claim(out, work))
        place = Place.on(device, world=world)
        with Stop() as stop:
            samples = _outcome(work, work.samples, out / "samples", place, stop, report)
            real_at = _real_directory(options.ref, out, work, world)
            real = _outcome(work, work.real, real_at, place, stop, report)
        return reported(out, work, samples, real, report, write=world.leads)


def _outcome(
    work: Work, training: TrainingSet, directory: Path, place: Place, stop: Stop, report: Report
) -> Outcome:
    key = key_of(work, training)
    found = kept_outcome(directory, key, report)
    if place.world.agree(found is not None) and found is not None:
        led(place.world, lambda: remove_checkpoints(directory))
        return found
    with ExitStack() as stack:
        led(place.world, lambda: stack.enter_context(held(directory)))
        return outcome_of(work, training, directory, place, stop, report)


def _real_directory(data: Path, out: Path, work: Work, world: World) -> Path:
    """Return the place beside the data, or one in our own directory if that cannot be written."""
    beside = reference_directory(data, work)
    good = not world.leads or (beside / OUTCOME).exists() or writable(beside)
    return beside if world.agree(good) else out / "real"
