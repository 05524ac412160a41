# ruff: noqa: S608  (names go through quote(), values are bound)
"""The entries of a link's log: reading, ordering and trimming them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from dualwrite.connectors._sqlite_capture import (
    INSERT,
    MARKER,
    REPLACED,
    UPDATE,
    Names,
    Plan,
    Shape,
    read_meta,
    read_shapes,
)
from dualwrite.connectors._sqlite_session import read_all
from dualwrite.connectors._sqlite_values import Storage
from dualwrite.model import Position

Image: TypeAlias = Mapping[str, Storage]
"""A record's captured columns by name, as stored; a column that was not captured then is missing."""

_EPOCH = 2440587.5  # the Julian day of 1970-01-01
_HEAD = 6
_NO_SHAPE = Shape(0, Plan("", (), (), ()), current=False)
_HEX = "\0hex"
_NO_END = 1 << 62
SLICE = 2000
"""Entries that are read at once, or deleted by one transaction of trimming: a few milliseconds of the write lock."""


class Entry(NamedTuple):
    """One entry of the log, its images as tuples in the order of its shape."""

    id: int
    shape: Shape
    op: str
    at: float
    rid: Storage
    note: str | None
    old: tuple[Storage, ...]
    new: tuple[Storage, ...]

    @property
    def table(self) -> str:
        """The table that was changed; empty for a marker."""
        return self.shape.plan.table

    def before(self) -> Image:
        """The old image by column."""
        return dict(zip(self.shape.plan.columns, self.old, strict=True))

    def after(self) -> Image:
        """The new image by column."""
        return dict(zip(self.shape.plan.columns, self.new, strict=True))


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
    """Reads raw entries; knows the shapes."""

    def __init__(self, connection: sqlite3.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self.reload()

    def reload(self) -> None:
        """Look again at what the log's columns mean."""
        self.shapes = read_shapes(self._connection, self._names)
        columns = [row[1] for row in self._connection.execute(f"PRAGMA table_info({self._names.log})")]
        self.width = sum(1 for name in columns if name[0] == "o" and name[1:].isdigit())
        images = [f"o{i}" for i in range(self.width)] + [f"n{i}" for i in range(self.width)]
        self._select = f"SELECT id, shape, op, at, rid, note, {', '.join(images)} FROM {self._names.log}"

    def read(self, after: int, limit: int, until: int = _NO_END) -> list[Entry]:
        """Entries in the order of the log, without those that are our own and not settled yet."""
        sql = f"{self._select} WHERE id > ? AND id <= ? AND own IS NOT 1 ORDER BY id LIMIT ?"
        return list(map(self._entry, read_all(self._connection, sql, (after, until, limit))))

    def scan(self, after: int, tables: Iterable[str]) -> Iterator[Entry]:
        """All entries of some tables, in order; memory stays bounded."""
        sql = f"{self._select} WHERE id > ? AND {self._of_tables(tables)} AND own IS NOT 1 ORDER BY id LIMIT {SLICE}"
        while rows := read_all(self._connection, sql, (after,)):
            yield from map(self._entry, rows)
            after = rows[-1][0]

    def own(
        self, after: int, triggered: Collection[str], now: Callable[[Entry], Sequence[Storage] | None]
    ) -> list[Entry]:
        """What the open transaction of ours has made the triggers log behind an entry."""
        sql = f"{self._select} WHERE id > ? AND own = 1 ORDER BY id"
        return in_order(list(map(self._entry, read_all(self._connection, sql, (after,)))), triggered, now)

    def markers(self, after: int) -> list[tuple[int, Marker]]:
        """Our commits behind an entry."""
        sql = f"SELECT id, note FROM {self._names.log} WHERE id > ? AND op = '{MARKER}' ORDER BY id"
        return [(id_, Marker.read(note)) for id_, note in self._connection.execute(sql, (after,))]

    def _of_tables(self, tables: Iterable[str]) -> str:
        """A condition: entries of these tables."""
        wanted = set(tables)
        numbers = sorted(number for number, shape in self.shapes.items() if shape.plan.table in wanted)
        return f"shape IN ({', '.join(map(str, numbers))})"

    def marker_at(self, place: int) -> Marker:
        """The last marker at or before a place."""
        sql = f"SELECT note FROM {self._names.log} WHERE op = '{MARKER}' AND id <= ? ORDER BY id DESC LIMIT 1"
        row = self._connection.execute(sql, (place,)).fetchone()
        return Marker.read(row[0]) if row else Marker()

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        shape = self.shapes.get(row[1], _NO_SHAPE)
        count = len(shape.plan.columns)
        old, new = row[_HEAD : _HEAD + count], row[_HEAD + self.width : _HEAD + self.width + count]
        return Entry(row[0], shape, row[2], row[3], row[4], row[5], old, new)


def end_of(connection: sqlite3.Connection, names: Names) -> int:
    """The id of the newest entry there ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (names.plain("log"),)).fetchone()
    return int(row[0]) if row else 0


# -- order -----------------------------------------------------------------------------------------------------------


def in_order(
    entries: Sequence[Entry],
    triggered: Collection[str],
    now: Callable[[Entry], Sequence[Storage] | None],
) -> list[Entry]:
    """The entries in the order in which things happened.

    An application's trigger that is newer than ours runs before ours: what it does to the row is logged before what
    it reacts to.  Two entries of one row whose images fit only the other way round change places, not their ids.
    Where both ways fit (there and back again) the row's entries around them decide, or what the row is ``now``.
    ``triggered`` are the tables that have triggers of the application.
    """
    ordered = list(entries)
    suspect = False
    for index in range(1, len(ordered)):
        place = index
        while place and ordered[place].table in triggered and may_be_swapped(ordered[place - 1], ordered[place]):
            if ordered[place].op == UPDATE and ordered[place].old == ordered[place - 1].new:
                suspect = True
                break
            ordered[place - 1], ordered[place] = ordered[place], ordered[place - 1]
            place -= 1
    if suspect:
        _swap_turns(ordered, now)
    pairs = zip(ordered, entries, strict=True)
    return [entry if entry is first else entry._replace(id=first.id) for entry, first in pairs]


def together(first: Entry, second: Entry) -> bool:
    """May the second entry have to be read with the first one?"""
    return first.op == REPLACED or may_be_swapped(first, second)


def may_be_swapped(earlier: Entry, later: Entry) -> bool:
    """Do the images of two neighbours fit the other way round?"""
    if later.shape is not earlier.shape or later.op not in (INSERT, UPDATE) or earlier.op != UPDATE:
        return False
    return later.new == earlier.old and (earlier.rid == later.rid or earlier.rid in later.new)


def _swap_turns(ordered: list[Entry], now: Callable[[Entry], Sequence[Storage] | None]) -> None:
    """Put turns there and back (a→b, b→a) right where the row's other entries say that they began at b."""
    rows: dict[tuple[int, Storage], list[int]] = {}
    for place, entry in enumerate(ordered):
        if entry.op in (INSERT, UPDATE) and entry.rid is not None:
            rows.setdefault((entry.shape.number, entry.rid), []).append(place)
    for places in rows.values():
        first = 0
        while first < len(places):
            last = first
            while last + 1 < len(places) and _turns_back(ordered[places[last]], ordered[places[last + 1]]):
                last += 1
            if (last - first) % 2 and _began_at_the_other_end(ordered, places, first, last, now):
                for one in range(first, last, 2):
                    a, b = places[one], places[one + 1]
                    ordered[a], ordered[b] = ordered[b], ordered[a]
            first = last + 1


def _turns_back(earlier: Entry, later: Entry) -> bool:
    return earlier.op == UPDATE == later.op and earlier.old == later.new and earlier.new == later.old


def _began_at_the_other_end(
    ordered: Sequence[Entry],
    places: Sequence[int],
    first: int,
    last: int,
    now: Callable[[Entry], Sequence[Storage] | None],
) -> bool:
    start, other = ordered[places[first]].old, ordered[places[first]].new
    if first:
        return ordered[places[first - 1]].new == other
    if last + 1 < len(places):
        return ordered[places[last + 1]].old == other
    if any(entry.op == MARKER for entry in ordered[places[last] :]):
        return False  # we may have written the row since
    return now(ordered[places[last]]) == other != start


# -- trimming --------------------------------------------------------------------------------------------------------


def last_change(connection: sqlite3.Connection, names: Names, upto: int) -> int:
    """The last entry up to there that is no marker; 0 when there is none."""
    sql = f"SELECT id FROM {names.log} WHERE op <> '{MARKER}' AND id <= ? ORDER BY id DESC LIMIT 1"
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
