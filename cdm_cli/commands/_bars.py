"""A bar of rich's that gives way to words where a terminal is narrow; loaded only for one."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cdm_cli.commands._progress import LEAST_BAR, Pace


def make_progress(console: Console) -> Progress:
    """Return a progress display whose tasks have a Pace under "pace" in their fields."""
    return Progress(_Line(), console=console, expand=True)


class _Line(ProgressColumn):
    """All of a task in one line."""

    def render(self, task: Task) -> "_Fitted":
        return _Fitted(task, task.fields["pace"])


@dataclass
class _Fitted:
    """What, a bar where there is room, and the words after it."""

    task: Task
    pace: Pace

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        what, text = self.pace.fit(width)
        room = width - len(what) - len(text) - 2
        line = Table.grid(padding=(0, 1, 0, 0))
        cells: list[RenderableType] = [Text(what), Text(text)]
        if room >= LEAST_BAR:
            cells.insert(1, ProgressBar(self.task.total, self.task.completed, room))
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        yield line
