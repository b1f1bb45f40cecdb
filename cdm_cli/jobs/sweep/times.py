"""The values of s that a sweep tries."""

from collections.abc import Sequence

from cdm_cli.cascade.conditioning import check_s, find_nearest_s
from cdm_cli.config import ConditioningConfig
from cdm_cli.errors import UsageError
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.options.sweeping import SweepOptions

UP_TO = 3 / 8  # of T: the paper's range, 1501 of 4000
TIMES = 6


def choose_times(options: SweepOptions, header: Header) -> Sequence[int]:
    """Return the values of s, in order: with other axes alone there is one, which must be given.

    Raises UsageError for an s that the stage was not trained on.
    """
    if options.times:
        _check_times(options, header)
        return options.times
    return [check_s(header.config, None)] if options.varied else choose_default_times(header)


def _check_times(options: SweepOptions, header: Header) -> None:
    """Raise UsageError for an s that the stage was not trained on; it advises a whole list."""
    try:
        for s in options.times:
            check_s(header.config, s)
    except UsageError as error:
        if not header.conditioning.gaussian:
            raise
        near = dict.fromkeys(find_nearest_s(header.conditioning, s) for s in options.times)
        flag = "--s " if options.s else "--axis s="
        raise UsageError(error.what, next=f"{flag}{','.join(map(str, near))}") from None


def choose_default_times(header: Header) -> list[int]:
    """Return 0 and the paper's six s (251, 501, … 1501 of T = 4000), scaled to T of z_schedule.

    Where training drew s from a smaller range, the six are spread over that range; 0 is left out
    where training never saw it. Raises UsageError for a stage that knows s = 0 only.
    """
    conditioning = header.conditioning
    if not conditioning.gaussian:
        raise UsageError(
            f"{header.directory} was trained without Gaussian conditioning augmentation: it takes "
            "s = 0 only, and there is nothing to search",
            next="cdm upsample, or cdm sweep-s --s 0 to judge it",
        )
    return [*([0] if _takes_zero(conditioning) else []), *_spread(conditioning)]


def _takes_zero(conditioning: ConditioningConfig) -> bool:
    return conditioning.s_min == 0 or conditioning.s_zero > 0


def _spread(conditioning: ConditioningConfig) -> list[int]:
    low, high = max(1, conditioning.s_min), conditioning.highest_s
    last = round(UP_TO * conditioning.z_schedule.T) + 1
    first = 1  # of the paper's grid, which has steps of T / 16 from here
    if not low <= last <= high:
        first, last = low, high
    steps = [first + round((last - first) * k / TIMES) for k in range(1, TIMES + 1)]
    return sorted({s for s in steps if low <= s <= high})
