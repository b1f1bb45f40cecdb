"""Whether a host's memory suffices: the system kills a process that takes more, without a word."""

from cdm_cli.data.memory import measure_free_memory
from cdm_cli.report import Report
from cdm_cli.units import format_memory


def warn_of_memory(
    what: str, flag: str, fixed: int, per_image: int, num: int, processes: int, report: Report
) -> None:
    """Say that something on a CPU may take more memory than is free, and what takes less.

    what: what takes it, in each of the processes of this host. fixed: bytes whatever the number of
    images; per_image: bytes for each of the num images at a time. flag: "--batch-size ", what a
    smaller number of them is given by.
    """
    free = measure_free_memory() // processes
    needed, room = fixed + per_image * num, (free - fixed) // per_image
    if needed <= free:
        return
    fits = 1 << max(room, 1).bit_length() - 1  # a power of two, as batch sizes are
    less = f"; {flag}{fits} takes less" if room > 0 else ""
    report.say(
        f"{what} may take up to {format_memory(needed)} of memory, of which "
        f"{format_memory(max(free, 0))} are free, and the system kills what takes more{less}"
    )
