"""`cdm eval cas`: the Classification Accuracy Score (Ravuri & Vinyals 2019; paper, Table 1b).

A classifier that saw samples alone is tested on real validation images; another one, of the same
recipe, that saw as many real training images says what the score would be for perfect samples.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cdm_cli.data.disk import check_room_in
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError, MissingError
from cdm_cli.jobs.cas.cost import build_without_memory, estimate_cas
from cdm_cli.jobs.cas.files import (
    check_free,
    claim,
    make_cas_file,
    make_writable,
    place_reference,
)
from cdm_cli.jobs.cas.plan import CasWork, TrainingSet, make_key, plan_work
from cdm_cli.jobs.cas.report import CasResult, write_score
from cdm_cli.jobs.cas.training import (
    OUTCOME,
    Outcome,
    read_outcome,
    remove_checkpoints,
    train_and_test,
)
from cdm_cli.jobs.cas.wait import Wait
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.names import CAS_FILE
from cdm_cli.options.cas import CasOptions
from cdm_cli.report import Report


@contextmanager
def _open_stores(options: CasOptions) -> Generator[tuple[Store, Store]]:
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
    """Return what `run` would train and cost; nothing is written.

    Raises what `plan_work` and `check_free` raise, MissingError without --ref, and DiskError.
    """
    device = plan_session(options.compute, report).device
    with _open_stores(options) as (store, ref):
        work = plan_work(options, store, ref, device)
        check_free(options.out, work)
        check_room_in(options.out)
        at = {"samples": options.out / "samples", "real": place_reference(ref.path, work)}
        sets = (work.samples, work.real)
        done = [read_outcome(at[each.name], make_key(work, each), report.say) for each in sets]
        cost = estimate_cas(work, device, done.count(None), options.compute.gpus or 1)
        return {"out": options.out, **cost}


def run(options: CasOptions, report: Report) -> CasResult:
    """Train, test and write the directory; the same command continues, or ends at once.

    Raises what `plan_work`, `claim` and `train_and_test` raise.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: CasOptions, session: Session) -> CasResult:
    """Score as one process of a job; the first one writes."""
    out = options.out
    with ExitStack() as stack:

        def begin() -> CasWork:
            store, ref = stack.enter_context(_open_stores(options))
            work = plan_work(options, store, ref, session.device)
            if not (out / CAS_FILE).exists():  # where torchvision fails, nothing is left behind
                build_without_memory(work.recipe)
            return work

        work = session.decide(begin, lambda work: make_cas_file(work).list_compared())
        session.check_shared(out)
        session.lead(lambda: claim(out, work))
        with Stop() as stop:
            real_at = _choose_real_directory(options.ref, out, work, session)
            sets = {out / "samples": work.samples, real_at: work.real}
            samples, real = _find_or_train_all(work, sets, stop, session).values()
        session.lead(lambda: claim(out, work))  # it may have been removed meanwhile
        return write_score(out, work, samples, real, session.report, write=session.world.leads)


def _find_or_train_all(
    work: CasWork, sets: Mapping[Path, TrainingSet], stop: Stop, session: Session
) -> dict[Path, Outcome]:
    """Return how each classifier answered, by its directory, in their order.

    What another process trains comes last: it is waited for, and trained on where that one was
    ended. Raises what `train_and_test` and `Wait` raise.
    """
    found, wait = dict[Path, Outcome](), Wait(stop, session)
    while True:
        for directory, training in sets.items():
            if directory not in found:
                outcome = _find_or_train(work, training, directory, wait)
                found |= {directory: outcome} if outcome else {}
        if len(found) == len(sets):
            return {directory: found[directory] for directory in sets}
        wait()


def _find_or_train(
    work: CasWork, training: TrainingSet, directory: Path, wait: Wait
) -> Outcome | None:
    """Return how a classifier answered, None while another process trains it."""
    key = make_key(work, training)
    found = _find(directory, key, wait)
    with ExitStack() as stack:
        if found or not wait.take(directory, stack):
            return found
        found = _find(directory, key, wait)  # another process may have ended in between
        return found or train_and_test(work, training, directory, wait.stop, wait.session)


def _find(directory: Path, key: str, wait: Wait) -> Outcome | None:
    session, found = wait.session, read_outcome(directory, key, wait.say_once)
    if session.world.agree(found is not None) and found is not None:
        session.lead(lambda: remove_checkpoints(directory))
        return found
    return None


def _choose_real_directory(data: Path, out: Path, work: CasWork, session: Session) -> Path:
    """Return the place beside the data, or one in our own directory if that cannot be written."""
    beside = place_reference(data, work)
    good = not session.world.leads or (beside / OUTCOME).exists() or make_writable(beside)
    return beside if session.world.agree(good) else out / "real"
