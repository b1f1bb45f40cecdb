"""Kernels run on the CPU by Triton's interpreter, which is on or off for a whole process."""

import os
import subprocess
import sys

import pytest

# Seen with Triton 3.6 and numpy 2.5: an array of one number no longer turns into an int.
UNKNOWN_NUMPY = "only 0-dimensional arrays can be converted to Python scalars"


def interpreted(script: str) -> str:
    """Return what a script prints under TRITON_INTERPRET; skip the test where it cannot run.

    It cannot without Triton, or where the installed Triton does not know the installed numpy.
    """
    pytest.importorskip("triton")
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if UNKNOWN_NUMPY in answer.stderr:
        pytest.skip(f"Triton's interpreter fails with this numpy: {UNKNOWN_NUMPY}")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()
