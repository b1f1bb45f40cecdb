"""Reports that interfere with a run at a certain bar."""

import signal
from contextlib import contextmanager

from tests.tiny import Told


class StopsAtBar(Told):
    """Asks to stop as soon as a bar advances whose name begins with a word, once."""

    def __init__(self, word):
        super().__init__()
        self._word, self._asked = word, False

    @contextmanager
    def track(self, what, total, unit, done=0):
        with super().track(what, total, unit, done) as told:

            def advance(count, note):
                told(count, note)
                if what.startswith(self._word) and not self._asked:
                    self._asked = True
                    signal.raise_signal(signal.SIGTERM)

            yield advance
