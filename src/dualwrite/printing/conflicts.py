"""What the commands about conflicts print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.journal import Conflict
from dualwrite.model import Row
from dualwrite.printing.terminal import cell, plain, said, show, stamp, table, when


def conflict_json(entry: Conflict) -> Mapping[str, object]:
    """A conflict; cells of a lookup with several parts are a list."""

    def value(row: Row | None) -> object:
        cells = plain(row)
        return cells[0] if cells is not None and len(cells) == 1 else cells

    return {
        "id": entry.id,
        "map": entry.map,
        "key": entry.shown_key,
        "column": entry.unit,
        "left": value(entry.left),
        "right": value(entry.right),
        "base": value(entry.base),
        "winner": entry.winner or None,
        "policy": entry.policy,
        "open": entry.open,
        "at": stamp(entry.at),
    }


def cells(row: Row | None, whole: bool) -> str:
    """The cells of a unit for people."""
    if row is None:
        return "[dim]deleted[/dim]" if whole else "[dim]–[/dim]"
    return "[dim]row[/dim]" if whole else ", ".join(map(cell, row))


def conflicts(entries: Sequence[Conflict]) -> None:
    """The conflict log."""
    made = table("#id", "map", "key", "column", "left", "right", "base", "winner", "policy", "at")
    for e in entries:
        whole = e.unit in ("row", "*")
        winner = e.winner or "[yellow]open[/yellow]"
        values = (cells(row, whole) for row in (e.left, e.right, e.base))
        what = (escape(e.map), escape(e.shown_key), escape(e.unit))
        made.add_row(str(e.id), *what, *values, winner, e.policy, when(e.at))
    show(made)
    said(f"{len(entries)} conflict(s)" if entries else "no conflicts")
