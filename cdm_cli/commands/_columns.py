"""Columns of cells: aligned text in a pipe, a table of rich's on a terminal; values as words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from cdm_cli.errors import make_printable
from cdm_cli.units import is_number

GAP = 2  # cells between columns
COMMAND = "cdm "
SHOWN = 12  # of a list in text; --json has it whole


@dataclass(frozen=True)
class Columns:
    """A table of cells under their titles."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers alone."""
        return [all(is_number(row[at]) for row in self.rows) for at in range(len(self.header))]

    @property
    def filled(self) -> "Columns":
        """The columns in which any row says something, as text that cannot steer a terminal."""
        used = [at for at in range(len(self.header)) if any(row[at] for row in self.rows)]
        header, *rows = [
            [make_printable(row[at]) for at in used] for row in [self.header, *self.rows]
        ]
        return Columns(header, rows)


def make_columns(rows: Sequence[Mapping[str, object]]) -> Columns:
    """Return rows as columns of words; a column that holds lists is shown by --json alone."""
    names = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if not any(_holds_lists(row.get(name)) for row in rows)
    ]
    return Columns(names, [[shorten(row.get(name)) for name in names] for row in rows])


def _holds_lists(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(item, list) for item in value.values())


def align(table: Columns) -> list[str]:
    """Return lines of text with columns of equal width; columns of numbers stand to the right."""
    table = table.filled
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, table.numeric, strict=True)
        ).rstrip()
        for line in [table.header, *table.rows]
    ]


def draw(table: Columns, width: int) -> list[str]:
    """Return the lines of a table as rich draws it on a terminal of so many cells.

    Cells are broken between words. Where that is not enough, the first columns that fit are drawn,
    and the others stand in a line of words below their row.
    """
    table = table.filled
    widths, taken = _choose_widths(table, width), _count_fitting(table, width)
    if widths or not taken:
        return _draw_by_rich(table, widths, width)
    whole = Columns(table.header[:taken], [row[:taken] for row in table.rows])
    head, rule, *lines = _draw_by_rich(whole, [], width)
    found = [head, rule]
    for line, row in zip(lines, table.rows, strict=True):
        rest = zip(table.header[taken:], row[taken:], strict=True)
        below = " · ".join(f"{title} {cell}" for title, cell in rest if cell)
        found += [line, *fold(f"  {below}", width, 2)]
    return found


def _choose_widths(table: Columns, width: int) -> list[int]:
    """Return widths of columns within which no word is broken, the widest cut first; [] if none."""
    columns = _list_columns(table)
    least = [max(len(word) for cell in cells for word in [*cell.split(), ""]) for cells in columns]
    widths, room = [max(map(len, cells)) for cells in columns], width - GAP * (len(columns) - 1)
    while sum(widths) > room:
        places = [at for at, size in enumerate(widths) if size > least[at]]
        if not places:
            return []
        widths[max(places, key=widths.__getitem__)] -= 1
    return widths


def _list_columns(table: Columns) -> list[tuple[str, ...]]:
    """Return the cells of each column, its title first."""
    return list(zip(table.header, *table.rows, strict=True))


def _count_fitting(table: Columns, width: int) -> int:
    """Return how many of the first columns fit beside each other unbroken."""
    widths = [max(map(len, column)) + GAP for column in _list_columns(table)]
    fit = [at for at in range(1, len(widths) + 1) if sum(widths[:at]) - GAP <= width]
    return max(fit, default=0)


def _draw_by_rich(table: Columns, widths: Sequence[int], width: int) -> list[str]:
    """Draw a table. widths: of its columns, left to rich where there are none."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    sizes = widths or [None] * len(table.header)
    for title, flush, size in zip(table.header, table.numeric, sizes, strict=True):
        side = "right" if flush else "left"
        shown.add_column(Text(title), justify=side, overflow="fold", width=size)
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console = Console(width=width, highlight=False)
    with console.capture() as held:
        console.print(shown)
    return held.get().rstrip("\n").split("\n")


def fold(line: str, width: int, indent: int = 0) -> list[str]:
    """Return a line broken between words to a width; a command stays whole, to be copied."""
    if len(line) <= width or line[indent:].lstrip("$ ").startswith(COMMAND):
        return [line]
    return wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip


def shorten(value: object) -> str:
    """Return a plain value in few characters: four digits of a float, a list's first words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shorten(item)}" for key, item in value.items())
    if isinstance(value, list):
        more = [f"… ({len(value)} in all)"] if len(value) > SHOWN else []
        return ", ".join([*map(shorten, value[:SHOWN]), *more]) or "none"
    return "" if value is None else str(value)
