"""Children of the process that runs the tests."""

import os
import warnings


def fork() -> int:
    """Fork, also beside threads that the child has no use for, as those of pytest-xdist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of them
        return os.fork()
