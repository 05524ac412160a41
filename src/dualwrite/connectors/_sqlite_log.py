# ruff: noqa: S608  (names go through quote(), values are bound)
"""The entries of a link's log: reading and trimming them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualwrite.connectors._sql import quote
from dualwrite.connectors._sqlite_capture import (
    DELETE,
    IS_LOSS,
    MARKER,
    REPLACED,
    Names,
    Plan,
    Shape,
    is_older,
    own_triggers,
    read_meta,
    read_shapes,
)
from dualwrite.connectors._sqlite_order import Doubt, Entry, State, in_order, state
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import read, read_all, some
from dualwrite.connectors._sqlite_values import Storage
from dualwrite.model import Position

_EPOCH = 2440587.5  # the Julian day of 1970-01-01
_HEAD = 6
_NO_SHAPE = Shape(0, Plan("", (), (), ()), current=False)
_HEX = "\0hex"
_LOOKAHEAD = 64
_SAMPLE = 100  # entries
_CELL = 4  # bytes of a number, more or less
SLICE = 2000
"""Entries that are read at once, or deleted by one transaction of trimming: a few milliseconds of the write lock."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What a commit of ours left in the log: its number, and how far this side had received the other by then.

    ``assigned`` are the rows whose references it set, per table; None where they are many.
    """

    number: int = 0
    seen: Position | None = None
    assigned: Mapping[str, Collection[tuple[Storage, ...]] | None] = field(default_factory=dict)

    @classmethod
    def read(cls, note: str) -> Marker:
        """The inverse of ``note``."""
        number, seen, assigned = _parsed(note)
        rows = {table: None if some is None else set(map(tuple, some)) for table, some in assigned.items()}
        return cls(number, Position.parse(seen) if seen else None, rows)

    def note(self) -> str:
        """As the log holds it."""
        rows = {table: None if some is None else list(some) for table, some in self.assigned.items()}
        return _written([self.number, str(self.seen) if self.seen else None, rows])


@dataclass(frozen=True, slots=True)
class Noted:
    """Whom a notice concerns: ``only`` these rows of a table, and not these (``but``); all of tables not named."""

    only: Mapping[str, Collection[tuple[Storage, ...]]] = field(default_factory=dict)
    but: Mapping[str, Collection[tuple[Storage, ...]]] = field(default_factory=dict)

    @classmethod
    def read(cls, note: str | None) -> Noted:
        """The inverse of ``text``."""
        parts = _parsed(note) if note else ({}, {})
        return cls(*({table: set(map(tuple, rows)) for table, rows in part.items()} for part in parts))

    def text(self) -> str:
        """As the log holds it."""
        return _written([{table: list(rows) for table, rows in part.items()} for part in (self.only, self.but)])

    def concerns(self, table: str, identity: tuple[Storage, ...]) -> bool:
        """Is it about this row?"""
        return identity not in self.but.get(table, ()) and (table not in self.only or identity in self.only[table])


def _written(value: object) -> str:
    """A note as text; identities may hold bytes."""
    return json.dumps(value, default=lambda held: {_HEX: held.hex()})


def _parsed(note: str) -> Any:  # noqa: ANN401  (its readers know what they wrote)
    return json.loads(note, object_hook=lambda held: bytes.fromhex(held[_HEX]) if list(held) == [_HEX] else held)


def instant(julian_day: float) -> float:
    """Seconds since the epoch."""
    return round((julian_day - _EPOCH) * 86400.0, 3)


class Entries:
    """Reads entries in the order in which things happened; knows the shapes."""

    def __init__(self, connection: sqlite3.Connection, names: Names, catalog: Catalog) -> None:
        self._connection = connection
        self._names = names
        self._catalog = catalog
        self.shapes = read_shapes(connection, names)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({names.log})")]
        self.width = sum(1 for name in columns if name[0] == "o" and name[1:].isdigit())
        images = [f"o{i}" for i in range(self.width)] + [f"n{i}" for i in range(self.width)]
        self._select = f"SELECT id, shape, op, at, rid, note, {', '.join(images)} FROM {names.log}"
        self.doubt = self._doubt()

    def _doubt(self) -> Doubt:
        selves = {name: facts.selves for name, facts in self._catalog.facts.items() if facts.selves}
        if not any(facts.triggers for facts in self._catalog.facts.values()):
            return Doubt(selves=selves)
        present = own_triggers(self._connection, self._names)
        older = (name for name, facts in self._catalog.facts.items() if is_older(present.get(name, {}), facts))
        until = int(read_meta(self._connection, self._names).get("disordered", 0))
        return Doubt(frozenset(older), until, selves)

    def read(self, after: int, limit: int, tables: Iterable[str] | None = None) -> tuple[list[Entry], bool]:
        """About ``limit`` entries, without those that are our own and not settled yet; are there more?

        What belongs together stays so.  Of large entries there are fewer.
        """
        only = "" if tables is None else f" AND {self._of_tables(tables)}"
        sql = f"{self._select} WHERE id > ?{only} AND own IS NOT 1 ORDER BY id LIMIT ?"
        rows, beyond = self._rows(sql, (after, limit + _LOOKAHEAD), limit)
        raw = list(map(self._entry, (*rows, *beyond)))
        limit, is_end = len(rows), len(beyond) < _LOOKAHEAD
        entries, places = self._in_order(raw, knows_now=is_end)
        reach = -1
        for count, (entry, place) in enumerate(zip(entries, places, strict=True), 1):
            reach = max(reach, place)
            if count >= limit and reach < count and entry.op != REPLACED:
                return entries[:count], count < len(entries) or not is_end
        return entries, not is_end

    def _rows(self, sql: str, bound: Sequence[int], limit: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Rows of the log, and some of those behind them."""
        return read(self._connection, sql, bound, lambda cursor: (some(cursor, limit), cursor.fetchmany(_LOOKAHEAD)))

    def scan(self, after: int, tables: Collection[str]) -> Iterator[Entry]:
        """All entries of some tables; memory stays bounded."""
        more = True
        while more:
            entries, more = self.read(after, SLICE, tables=tables)
            yield from entries
            after = entries[-1].id if entries else after

    def settled(self, after: int) -> int:
        """The last entry behind a place, as far as nothing of it is still to change."""
        sql = f"SELECT max(id), max(own) FROM {self._names.log} WHERE id > ?"
        (last, own), *_ = read_all(self._connection, sql, (after,))
        return after if last is None or own == 1 else last

    def one(self, id_: int) -> Entry:
        """A single entry as it stands in the log."""
        return self._entry(read_all(self._connection, f"{self._select} WHERE id = ?", (id_,))[0])

    def _in_order(self, entries: Sequence[Entry], *, knows_now: bool) -> tuple[list[Entry], list[int]]:
        return in_order(entries, self.doubt, self._catalog, self._now if knows_now else lambda _: None)

    def _now(self, entry: Entry) -> State | None:
        """What the row of an entry is now."""
        if not entry.shape.current:
            return None
        number, apart, _ = state(self._catalog, entry, None if entry.op == DELETE else entry.new, is_after=True)
        same = " AND ".join(f"{quote(name)} = ?" for name in self._catalog.facts[entry.table].identity)
        chosen = ", ".join(map(quote, entry.shape.plan.columns))
        held = apart if isinstance(apart, tuple) else (apart,)
        rows = read_all(self._connection, f"SELECT {chosen} FROM {quote(entry.table)} WHERE {same}", held)
        return number, apart, rows[0] if rows else None

    def own(self, after: int) -> Iterator[Entry]:
        """What the open transaction of ours has made the triggers log behind an entry.

        Some at a time, where none can stand in the wrong place: one of our deletes may cascade to very many rows.
        """
        sql = f"{self._select} WHERE id > ? AND own = 1 ORDER BY id"
        if self.doubt.is_any or self.doubt.until > after:
            yield from self._in_order(
                list(map(self._entry, read_all(self._connection, sql, (after,)))), knows_now=True
            )[0]
            return
        last: int | None = after
        while last is not None:
            rows = read(self._connection, f"{sql} LIMIT {SLICE}", (last,), lambda cursor: some(cursor, SLICE))
            yield from map(self._entry, rows)
            last = rows[-1][0] if rows else None

    def markers(self, after: int) -> list[tuple[int, Marker]]:
        """Our commits behind an entry."""
        sql = f"SELECT id, note FROM {self._names.log} WHERE id > ? AND op = '{MARKER}' ORDER BY id"
        return [(id_, Marker.read(note)) for id_, note in self._connection.execute(sql, (after,))]

    def _of_tables(self, tables: Iterable[str]) -> str:
        """A condition: entries of these tables."""
        wanted = set(tables)
        numbers = sorted(number for number, shape in self.shapes.items() if shape.plan.table in wanted)
        return f"shape IN ({', '.join(map(str, numbers))})"

    def marker(self, after: int, upto: int) -> Marker | None:
        """The last marker behind one place, and at or before another."""
        sql = (
            f"SELECT note FROM {self._names.log} WHERE op = '{MARKER}' AND id > ? AND id <= ? ORDER BY id DESC LIMIT 1"
        )
        row = self._connection.execute(sql, (after, upto)).fetchone()
        return Marker.read(row[0]) if row else None

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        shape = self.shapes.get(row[1], _NO_SHAPE)
        count = len(shape.plan.columns)
        old, new = row[_HEAD : _HEAD + count], row[_HEAD + self.width : _HEAD + self.width + count]
        return Entry(row[0], shape, row[2], row[3], row[4], row[5], old, new)


def end_of(connection: sqlite3.Connection, names: Names) -> int:
    """The id of the newest entry there ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (names.plain("log"),)).fetchone()
    return int(row[0]) if row else 0


def size_of(connection: sqlite3.Connection, names: Names) -> int:
    """About how many bytes all entries take: the newest ones are taken for the measure."""
    newest = connection.execute(f"SELECT * FROM {names.log} ORDER BY id DESC LIMIT {_SAMPLE}").fetchall()
    size = sum(len(cell) if isinstance(cell, str | bytes) else _CELL for row in newest for cell in row)
    (count,) = connection.execute(f"SELECT count(*) FROM {names.log}").fetchone()
    return size * count // len(newest) if newest else 0


# -- trimming --------------------------------------------------------------------------------------------------------


def last_change(connection: sqlite3.Connection, names: Names, upto: int) -> int:
    """The last entry up to there that is a loss to those who have not read it; 0 when there is none."""
    sql = f"SELECT id FROM {names.log} WHERE {IS_LOSS} AND id <= ? ORDER BY id DESC LIMIT 1"
    row = connection.execute(sql, (upto,)).fetchone()
    return int(row[0]) if row else 0


def trim_slice(connection: sqlite3.Connection, names: Names, cut: int) -> bool:
    """Delete some entries at or before ``cut``, inside the caller's transaction; is there more?

    The last marker at or before the cut stays: it says what had been seen.  What the side table only keeps for
    changes from before that marker goes too.
    """
    done = int(read_meta(connection, names)["trimmed"])
    end = min(cut, done + SLICE)
    if end <= done:
        return False
    sql = f"SELECT max(id) FROM {names.log} WHERE op = '{MARKER}' AND id <= ?"
    row = connection.execute(f"SELECT id, note FROM {names.log} WHERE id = ({sql})", (end,)).fetchone()
    kept, number = (row[0], Marker.read(row[1]).number) if row else (0, 0)
    lost = last_change(connection, names, end)
    if lost:  # whoever has not read up to here has lost changes, and not only markers
        connection.execute(f"UPDATE {names.meta} SET value = ? WHERE name = 'lost'", (lost,))
    connection.execute(f"DELETE FROM {names.log} WHERE id <= ? AND id <> ?", (end, kept))
    connection.execute(f"UPDATE {names.meta} SET value = ? WHERE name = 'trimmed'", (end,))
    if end == cut:
        connection.execute(f"DELETE FROM {names.side} WHERE until <= ?", (number,))
    return end < cut
