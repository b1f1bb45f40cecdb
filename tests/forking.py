"""Children of the process that runs the tests."""

import os
import warnings
from pathlib import Path


def fork() -> int:
    """Fork, also beside threads that the child has no use for, as those of pytest-xdist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of them
        return os.fork()


def children_of(pid: int) -> list[int]:
    """Return the processes that threads of a process started, and that nobody has waited for."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
