"""How many threads small matrices take: one.

The numbers of a point take 11 to 41 Fréchet distances. With the 256 features of a classifier each
has matrices that one thread is done with in milliseconds; several threads wait for each other
longer than that, and where another program holds a core, seconds.
"""

from collections.abc import Generator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

SMALL = 512  # features: matrices of more have work for several threads
# OpenBLAS is NumPy's and SciPy's alone, OpenMP counts by thread: others compute as before.
LIMITED = ["openblas", "openmp"]


@contextmanager
def limit_threads_if_small(feature_dim: int) -> Generator[None]:
    """Let matrices [D, D] of at most SMALL be computed in one thread within."""
    if feature_dim > SMALL:
        yield
        return
    with ThreadpoolController().select(internal_api=LIMITED).limit(limits=1):
        yield
