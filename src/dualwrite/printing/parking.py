"""What the commands about parked records print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.journal import KeptChange, Parked
from dualwrite.model import ABSENT, Row, Value
from dualwrite.printing import terminal
from dualwrite.printing.terminal import cell, fitting, one_line, said, show, show_below, show_line, stamp, table, when
from dualwrite.troubles import remedy_of


def parked_json(entry: Parked) -> dict[str, object]:
    """A parked record."""
    return {
        "id": entry.id,
        "map": entry.map,
        "side": str(entry.side),
        "key": entry.shown_key,
        "code": entry.code,
        "reason": entry.reason,
        "remedy": remedy_of(entry.code),
        "column": entry.column,
        "attempts": entry.attempts,
        "changes": entry.changes,
        "since": stamp(entry.since),
    }


def changes_json(changes: Sequence[KeptChange], paths: Sequence[str]) -> list[Mapping[str, object]]:
    """The waiting changes of a parked record; ``paths`` are those of rows that do not say it themselves."""

    def named(row: Row | None, kept: KeptChange) -> Mapping[str, Value] | None:
        if row is None:
            return None
        return {path: value for path, value in zip(_paths(kept, paths), row, strict=False) if value is not ABSENT}

    return [
        {
            "kind": str(kept.change.kind),
            "at": stamp(kept.change.at),
            "before": named(kept.change.before, kept),
            "after": named(kept.change.after, kept),
        }
        for kept in changes
    ]


def _paths(kept: KeptChange, paths: Sequence[str]) -> Sequence[str]:
    return paths if kept.layout is None else kept.layout.paths


def parked(entries: Sequence[Parked]) -> None:
    """The list of parked records."""
    parked_table(entries)
    said(f"{len(entries)} parked" if entries else "nothing is parked")


def parked_table(entries: Sequence[Parked]) -> None:
    """Parked records as a table, with reason and remedy below each."""
    names = ("#id", "map", "side", "key", "code", "#tries", "since")
    rows = [(str(e.id), e.map, str(e.side), e.shown_key, e.code, str(e.attempts), when(e.since)) for e in entries]
    if not rows:
        return
    widths = fitting([[name.removeprefix("#") for name in names], *rows], terminal.console.width, ("map", "key"), names)
    terminal.console.print(one_line(names, widths))
    for row, entry in zip(rows, entries, strict=True):
        show_line(names, widths, row)
        remedy = remedy_of(entry.code)
        show_below("\n".join([entry.reason, *([f"→ {remedy}"] if remedy else [])]), 6)


def parked_one(entry: Parked, changes: Sequence[KeptChange], paths: Sequence[str]) -> None:
    """A parked record with its waiting changes, and what to do; ``paths`` as for ``changes_json``."""
    parked_table([entry])
    for kept in changes:
        change = kept.change
        terminal.console.print(f"\n{change.kind} by the {entry.side.other} side {when(change.at)}")
        made = table("column", "before", "after")
        width = max(len(row) for row in (change.before, change.after) if row is not None)
        for index, path in enumerate(_paths(kept, paths)[:width]):
            before, after = (None if row is None else row[index] for row in (change.before, change.after))
            if before != after:
                shown = ("" if row is None else cell(row[index]) for row in (change.before, change.after))
                made.add_row(escape(path), *shown)
        show(made)


def edited(answer: Mapping[str, object], number: int) -> None:
    """What an edit has written, and what became of the parked record."""
    columns = answer["columns"]
    assert isinstance(columns, Mapping)
    for path, (old, new) in columns.items():
        said(f"{answer['side']} {path}: {old} → {new}")
    said("it went through" if answer["freed"] else f"{number} is still parked: see dualwrite parked show {number}")
