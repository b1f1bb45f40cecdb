"""The program `cdm`, and `python -m cdm_cli`: signals are heard before anything is imported."""

import os
import sys
from typing import NoReturn

from cdm_cli.signals import leave_when_asked

STREAMS = ("stdin", "stdout", "stderr")


def main() -> NoReturn:
    """Run `cdm` on the words of the command line."""
    _open_closed_streams()
    leave_when_asked()
    from cdm_cli.app import main as run

    run()


def _open_closed_streams() -> None:
    """Give /dev/null to streams that the caller closed, as `cdm … >&-` and some cron do.

    Otherwise the next file that is opened, a store perhaps, would be where a library prints.
    """
    for fd, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(found, True)  # by processes that are started, as is any stream
            setattr(sys, name, open(found, "w" if fd else "r", encoding="utf-8"))


if __name__ == "__main__":
    main()
