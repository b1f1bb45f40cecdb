"""What a stage is judged on: a super-resolution stage enlarges real images, or generated ones.

The paper's Table 3b: ground truth ranks settings otherwise than the samples that a stage will be
given. Without a store of these, real images stand for them.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.sampling.fitting import advise_store, starts_from
from cdm_cli.jobs.sampling.headers import Header, describe_lowres_misfit
from cdm_cli.jobs.sampling.probe import Probe, choose_s, make_base_probe, make_sr_probe
from cdm_cli.jobs.sampling.store_images import choose_part, choose_rows, tell_rows
from cdm_cli.options.sampling import Sampling
from cdm_cli.report import Report
from cdm_cli.units import format_count

GENERATED = "generated"


def open_generated(
    path: Path | None, header: Header, stack: ExitStack, flag: str, num: int, report: Report
) -> Store | None:
    """Open the low-resolution samples that a flag names; None without one.

    report: told where the first num of them, which are enlarged, lack classes.
    Raises UsageError for a base stage, and MismatchError where the stage cannot enlarge them.
    """
    if path is None:
        return None
    if header.config.kind == "base":
        raise UsageError(
            f"{flag} {path}: {header.directory} is a base stage, which enlarges nothing",
            next=f"leave out {flag}",
        )
    store = stack.enter_context(open_store(path))
    store.require_finished()
    reason = describe_lowres_misfit(header, store, choose_part(store, None)[1])
    if reason:
        raise MismatchError(
            f"{flag} {path} does not fit {header.directory}: {reason}",
            kept="no output was made",
            next=advise_store(
                flag,
                path,
                partial(starts_from, header),
                "cdm sample draws what it starts from",
                kind="samples",
            ),
        )
    tell_rows(store, None, num, report)
    return store


def make_probe(
    header: Header, store: Store | None, num: int, s: int | None, sampling: Sampling,
    flags: tuple[str, str], generated: Store | None = None,
) -> Probe:  # fmt: skip
    """Fix num samples that FID will judge. flags: what the user calls num and s.

    store: the real images that a super-resolution stage enlarges, generated: those that it
    enlarges instead; a base stage needs none. Raises UsageError for an s that the stage does not
    know, or where the store has fewer images than a super-resolution stage is to enlarge.
    """
    s = choose_s(header.config, s, flags[1])
    if s is None:
        return make_base_probe(header, num, sampling)
    lowres = generated or store
    assert lowres is not None
    name, part = choose_part(lowres, None)
    if num > part.num:
        raise UsageError(
            f"{flags[0]} {num}: {lowres.path} has {format_count(part.num, 'image')} "
            f"{f'in {name} ' if name else ''}to enlarge",
            next=f"{flags[0]} {part.num}",
        )
    probe = make_sr_probe(header, lowres, choose_rows(lowres, part, num), s, sampling)
    if generated is None:
        return probe
    return replace(probe, lowres=GENERATED, lowres_digest=generated.digest)
