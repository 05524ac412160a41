"""What all output is made of: lines, tables for people (Rich), JSON for programs, times and cells."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from dualwrite.errors import DualwriteError
from dualwrite.model import ABSENT, Cell, Row, Value

PIPED = 120
"""Columns of a table that goes into a file or another program."""
console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED)
COLOURS = {
    "running": "green",
    "initializing": "cyan",
    "paused": "yellow",
    "resuming": "cyan",
    "needs attention": "red",
    "error": "red",
    "warning": "yellow",
}


def said(text: str) -> None:
    """One plain line."""
    console.print(escape(text), soft_wrap=True)


def error(trouble: DualwriteError) -> None:
    """One error on the error stream: what happened, what to do next."""
    print(f"dualwrite: {trouble.message}", file=sys.stderr)
    if trouble.remedy:
        print(f"  → {trouble.remedy}", file=sys.stderr)


def note(text: str) -> None:
    """One plain line on the error stream, beside the result."""
    print(text, file=sys.stderr)


def misused(message: str, context: object) -> None:
    """A command line that cannot be read, on the error stream; help stands for itself."""
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
        return
    print(f"dualwrite: {message}", file=sys.stderr)
    print(f"  → see {getattr(context, 'command_path', 'dualwrite')} --help", file=sys.stderr)


def verbatim(text: str) -> None:
    """A text as it stands."""
    print(text, end="")


class Streamed(list[object]):
    """A list for ``json_out`` that may be longer than memory has room: its items are made as they are written, once."""

    def __init__(self, items: Iterable[object]) -> None:
        super().__init__()
        self._items = iter(items)
        self._first: list[object] = []

    def __bool__(self) -> bool:
        """Is there any item?  The first one is made to see that."""
        self._first = self._first or list(islice(self._items, 1))
        return bool(self._first)

    def __iter__(self) -> Iterator[object]:
        return chain(self._first, self._items)


def json_out(value: object) -> None:
    """A value as JSON."""
    parts = json.JSONEncoder(indent=2, ensure_ascii=False, default=str).iterencode(value)
    while some := "".join(islice(parts, 10_000)):
        sys.stdout.write(some)
    print()


def when(at: float) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") if at > 0 else ""


def stamp(at: float) -> str | None:
    """A time for programs: ISO 8601, UTC; None when it is not known."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at > 0 else None


def table(*columns: str, title: str = "") -> Table:
    """A plain table."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column.startswith("#") else "left", overflow="fold")
    return made


def tidied(made: Table) -> Table:
    """The table without the marks of columns that hold numbers."""
    for column in made.columns:
        column.header = str(column.header).removeprefix("#")
    return made


def show(made: Table) -> None:
    """Print a table if it has rows."""
    if made.row_count:
        console.print(tidied(made))


def cell(value: Cell) -> str:
    """A value for people."""
    return "[dim]null[/dim]" if value is None else "[dim]…[/dim]" if value is ABSENT else escape(value)


def one_line(names: Sequence[str], widths: Sequence[int], row: Sequence[str] | None = None) -> Table:
    """A row of a table that is printed row by row; the header without one."""
    line = table(*names)
    line.show_header = row is None
    for column, width in zip(line.columns, widths, strict=True):
        column.width = width
        column.header = str(column.header).removeprefix("#")
    if row is not None:
        line.add_row(*row)
    return line


def show_line(names: Sequence[str], widths: Sequence[int], row: Sequence[str]) -> None:
    """Print a plain row of a table that is printed row by row.

    Rich lays out only what needs it, here and below: it takes most of the time where there are very many.
    """
    if not all(map(_fits, row, widths)):
        console.print(one_line(names, widths, [escape(each) for each in row]))
        return
    cells = (
        each.rjust(width) if name.startswith("#") else set_cell_size(each, width)
        for name, width, each in zip(names, widths, row, strict=True)
    )
    print("  ".join(cells))


def show_below(text: str, indent: int) -> None:
    """Print plain lines, indented; one that is too long goes on below."""
    for line in text.splitlines():
        if _fits(line, console.width - indent):
            print(" " * indent + line)
        else:
            console.print(Padding(escape(line), (0, 0, 0, indent)))


def _fits(text: str, width: int) -> bool:
    """Is this plain text that one line has room for?"""
    return text.isprintable() and cell_len(text) <= width


def fitting(rows: Sequence[Sequence[str]], space: int, giving: Sequence[str], names: Sequence[str]) -> list[int]:
    """The columns' widths for plain text, so that they fit into the space; those that give way lose first, down to
    eight."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for index in (names.index(name) for name in giving):
        widths[index] -= max(0, min(widths[index] - 8, sum(widths) + 2 * (len(widths) - 1) - space))
    return widths


def plain(row: Row | None) -> list[Value] | None:
    """A row for JSON."""
    return None if row is None else [None if value is ABSENT else value for value in row]
