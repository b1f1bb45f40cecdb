"""What happens between two steps besides training: pictures, accuracy, the choice of the best.

An extra reads the averaged weights and touches nothing that a step depends on, so a run ends
in the same bytes with extras and without.
"""

from typing import Protocol

from cdm_cli.jobs.training.log import Metrics


class Extra(Protocol):
    """Something that is done every so many steps, and after the last one; 0 steps: never."""

    @property
    def every(self) -> int:
        """Steps from one time to the next."""
        ...

    def missing(self, step: int) -> bool:
        """Whether what it makes at a step is not there; asked in the first process only."""
        ...

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Do it after a step, in every process; metrics is None in all but the first one.

        Writes nothing if the run is asked to stop meanwhile: it is done when the run resumes.
        """
        ...


def due(extra: Extra, step: int, last: int) -> bool:
    """Say whether an extra is due after a step of a run that ends with step `last`."""
    return extra.every > 0 and step > 0 and (step % extra.every == 0 or step == last)
