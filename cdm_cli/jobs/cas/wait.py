"""How processes of `cdm eval cas` share two trainings: each takes one that no other one holds."""

import time
from contextlib import ExitStack
from pathlib import Path

from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.runtime.session import GLANCE, Session
from cdm_cli.jobs.runtime.stop import Stop

PATIENCE = 3600.0  # seconds in which another process saves nothing, that end a wait for it


class Wait:
    """Takes trainings, and waits for those that other processes have taken; says so once."""

    def __init__(self, stop: Stop, session: Session) -> None:
        self.stop, self.session = stop, session
        self._busy: dict[Path, str] = {}  # what is said of those that are held
        self._said = set[str]()
        self._seen: list[list[Path]] = []
        self._since = time.monotonic()

    def take(self, directory: Path, stack: ExitStack) -> bool:
        """Hold the lock of a training as long as the stack; tell if no other process holds it.

        Raises DiskError where nothing can be written.
        """
        busy = self.session.lead(lambda: _hold_or_tell(directory, stack)) or ""
        busy = self.session.world.gather(busy)[0]
        if busy and directory not in self._busy:
            self.session.report.say(f"{busy}: it is waited for")
        if busy:
            self._busy[directory] = busy
        else:
            self._busy.pop(directory, None)
        return not busy

    def say_once(self, line: str) -> None:
        """Say a line that was not said before, of what is looked at again after every wait."""
        if line not in self._said:
            self._said.add(line)
            self.session.report.say(line)

    def __call__(self) -> None:
        """Wait a moment.

        Raises StoppedError when asked to stop, or where others save nothing for PATIENCE seconds.
        """
        time.sleep(GLANCE)
        seen = [list_checkpoints(directory) for directory in self._busy]
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        late = time.monotonic() - self._since > PATIENCE
        kept, where = "what is trained is kept", f"; {', '.join(self._busy.values())}"
        if self.session.world.any(bool(self.stop.asked)):
            raise self.stop.error(kept, where=where)
        if self.session.world.any(late):
            told = f"stopped waiting: nothing was saved for {PATIENCE:.0f} s{where}"
            raise StoppedError(told, kept=kept, next="the same command continues")


def _hold_or_tell(directory: Path, stack: ExitStack) -> str:
    """Return who holds the lock of a training, "" where this process does from now on."""
    try:
        stack.enter_context(hold_lock(directory))
    except StoppedError as error:
        return error.what
    return ""
