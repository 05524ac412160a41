"""What the commands about conflicts print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.markup import escape
from rich.padding import Padding

from dualwrite.journal import Conflict
from dualwrite.model import Row
from dualwrite.printing.terminal import cell, console, plain, said, stamp, when


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


def conflicts(entries: Iterable[Conflict]) -> None:
    """The conflict log: a line for each, what both sides wrote below it."""
    count = 0
    for e in entries:
        count += 1
        whole = e.unit in ("row", "*")
        verdict = f"[yellow]{e.verdict}[/yellow]" if e.open else e.verdict
        where = " · ".join(escape(word) for word in (e.map, e.shown_key, e.unit))
        console.print(f"[bold]{e.id}[/bold]  {where}  {verdict} ({e.policy})  [dim]{when(e.at)}[/dim]")
        values = (("left", e.left), ("right", e.right), ("base", e.base))
        told = "; ".join(f"{name} {cells(row, whole)}" for name, row in values)
        console.print(Padding(told, (0, 0, 0, 6), expand=False))
    said(f"{count} conflict(s)" if count else "no conflicts")
