"""The trials of a search, and what it gains: a line of JSON for each, from which it continues.

The first line says what all of them are of. A line that a kill left half written is dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from cdm_cli.cascade.files import read_bytes
from cdm_cli.config import StageConfig
from cdm_cli.data import disk, durable
from cdm_cli.errors import BadInputError, quote
from cdm_cli.jobs.runtime import identity as same_job
from cdm_cli.jobs.runtime.identity import complete, other_job_error
from cdm_cli.jobs.runtime.same_stage import update_stage_digest
from cdm_cli.jobs.sampling.schedule_file import Gain, Named, Searched
from cdm_cli.jobs.tune.search import Origin, Place
from cdm_cli.jobs.tune.ways import Way
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.names import Sampler, Searching, Variance
from cdm_cli.settings import Later, Settings

M = TypeVar("M")
LIMIT = 2**28


class LogHead(Settings):
    """The first line: what decides every number, and what is known once weights are loaded.

    identity: what must be equal for a run to continue this log. gains: whether what a schedule
    gains is judged on fresh images, which earlier versions did not.
    """

    schema_version: Literal[1] = 1
    identity: dict[str, Any]
    stage: str
    stage_digest: str
    reference: str
    convention: dict[str, str | int | float | None]
    numerics: dict[str, Any]
    gains: bool = False


LATER_FIELD = Later(settable=False)


class Trial(Settings):
    """One judged schedule. number 0 is the baseline, the stage's own schedule respaced.

    place: where in the box of `search`, of a linear schedule. times, stochasticity, sampler: of a
    way (`ways`). first: FID of the first images, and what it is without each group of them.
    dropped: on these it was worse than the best, and fid is of these alone.
    """

    steps: int
    number: int
    origin: Origin
    place: Place | None = None
    beta_1: float | None = None
    beta_T: float | None = None  # noqa: N815
    variance: Variance
    fid: float
    sampler: Annotated[Sampler | None, LATER_FIELD] = None
    times: Annotated[tuple[int, ...] | None, LATER_FIELD] = None
    stochasticity: Annotated[tuple[float, ...] | None, LATER_FIELD] = None
    first: Annotated[tuple[float, ...], LATER_FIELD] = ()
    dropped: Annotated[bool, LATER_FIELD] = False


class FirstTimes(Settings):
    """Times, decreasing, that a free search of one number of steps begins with (`begin`)."""

    steps: int
    elbo: tuple[int, ...] | None
    teacher: tuple[int, ...]


class FreshScore(Settings):
    """FID of one way on images that chose none, with leave-out values. steps 0: the reference."""

    steps: int
    name: Named
    num: int
    value: float
    without: tuple[float, ...]
    without_two: tuple[float, ...]

    @property
    def estimate(self) -> Estimate:
        """The FID as an Estimate, with its leave-out values."""
        return Estimate(self.value, self.without, self.without_two)


Line = Trial | Gain | FirstTimes | FreshScore
LATER: TypeAdapter[Line] = TypeAdapter(Line)


@dataclass(frozen=True)
class Log:
    """All lines of a search, what belongs to a number of steps by that."""

    head: LogHead
    trials: list[Trial]
    gains: dict[int, Gain]
    begun: dict[int, FirstTimes]
    judged: dict[tuple[int, Named], FreshScore]

    def of(self, steps: int) -> list[Trial]:
        """Return the trials of one number of steps, in order."""
        return [trial for trial in self.trials if trial.steps == steps]


def name_log(out: Path) -> Path:
    """Return where the trials of a schedule file are kept."""
    return out.with_name(f"{out.stem}.trials.jsonl")


def read_log(path: Path) -> Log | None:
    """Return the lines of a search, or None where there is no log yet.

    A last line without its end, which a kill left, does not count. Raises BadInputError for any
    other line that is none of ours.
    """
    if not path.exists():
        return None
    lines = read_bytes(path, LIMIT).splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    head = _parse(TypeAdapter(LogHead), whole[0] if whole else b"", path, 1)
    later = [_parse(LATER, line, path, at) for at, line in enumerate(whole[1:], 2)]
    return Log(
        head,
        [line for line in later if isinstance(line, Trial)],
        {line.steps: line for line in later if isinstance(line, Gain)},
        {line.steps: line for line in later if isinstance(line, FirstTimes)},
        {(line.steps, line.name): line for line in later if isinstance(line, FreshScore)},
    )


def _parse(lines: TypeAdapter[M], line: bytes, path: Path, number: int) -> M:
    try:
        return lines.validate_json(line)
    except ValidationError:
        cut = f"sed -i '{number},$d' {quote(path)}, then the same command goes on from there"
        advise = cut if number > 1 else "another -o, where the search begins anew"
        raise BadInputError(
            f"{path}: line {number} is no line of a search",
            kept="it was left as it is",
            next=advise,
        ) from None


def read_method(log: Log | None) -> Searching | None:
    """Return what the schedules of a search are; versions that knew linear ones did not say it."""
    if log is None:
        return None
    return "free" if log.head.identity.get("search") == "free" else "linear"


def check_same_search(out: Path, identity: dict[str, Any], config: StageConfig) -> None:
    """Raise WouldOverwriteError naming what differs if out is of another search.

    Raises MissingError where the directory of out does not exist.
    """
    disk.check_room(out, 0)
    log = read_log(name_log(out))
    if log is None:
        if out.exists():
            raise other_job_error(
                out, f"{out} exists, and the log of its search, {name_log(out)}, does not"
            )
        return
    there = complete(update_stage_digest(log.head.identity, config), identity)
    same_job.check_same(out, "search", there, _select_starts(identity, there))


def _select_starts(identity: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """Return an identity with those ways of --start whose numbers of steps are recorded there.

    Earlier versions recorded no others than were searched at first: others of the file join them.
    """
    if "start" not in there or "start" not in identity:
        return identity
    known = {n: way for n, way in identity["start"].items() if n in there["start"]}
    return identity | {"start": known}


def start_log(path: Path, head: LogHead) -> None:
    """Write the first line, or drop what a kill left half written of the last."""
    if not path.exists():
        durable.write_file_atomically(path, _encode_line(head))
        return
    content = read_bytes(path, LIMIT)
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        durable.write_file_atomically(path, whole)


def append_line(path: Path, line: Line) -> None:
    """Append a trial, what the search begins with, or what was judged of its best, durably."""
    durable.append(path, _encode_line(line))


def _encode_line(value: Settings) -> bytes:
    return (value.model_dump_json() + "\n").encode()


def read_way(found: Trial | Searched) -> Way | None:
    """Return the way of a trial or of a schedule; None for linear ones, and for a stage's own."""
    if found.times is None or found.stochasticity is None:
        return None
    solver = "ddim" if found.sampler == "ddim" else "dpm-solver++"
    return Way(found.times, found.stochasticity, solver)


def find_best_trial(trials: Iterable[Trial]) -> Trial:
    """Return the trial of the lowest FID of all images; of equals the earliest."""
    judged = [trial for trial in trials if not trial.dropped]
    return min(judged, key=lambda trial: (trial.fid, trial.number))


def read_own_log(path: Path) -> Log:
    """Return the lines of a search whose log this job has started."""
    found = read_log(path)
    assert found is not None
    return found
