# ruff: noqa: S608  (names go through quote(), values are bound)
"""Records that look different because another record, which they look up, got another key or has only come now.

They are found as of a place in the log: rows that have entries of their own behind that place are taken from those,
all others from the table as it is.  Large numbers of them come in chunks, in the order of their rowids.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dualwrite.connectors._scratch import Scratch
from dualwrite.connectors._sql import quote, reference_of, table_of
from dualwrite.connectors._sqlite_capture import GONE, INSERT, NOTICE, UPDATE, Names, Shape
from dualwrite.connectors._sqlite_log import Entries, Marker, Noted
from dualwrite.connectors._sqlite_natural import History, Identity, Override, Sight, Target, comparable
from dualwrite.connectors._sqlite_order import Entry, Image, state
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import read_all
from dualwrite.connectors._sqlite_values import Storage
from dualwrite.connectors._sqlite_view import fill_keys
from dualwrite.schema import Reference, View

Found: TypeAlias = dict[Identity, tuple[Storage, ...]]
"""Rows by what tells them apart, in the order of their table's captured columns."""
CHUNK = 1000
KEPT = 20_000
"""Entries of a table of which the last are not read again because the first are passed."""
_MANY = 3
"""Renames of one read from which on it pays to look for all their onlookers at once."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Rows of a view look through a chain of references at a table."""

    number: int
    sight: Sight
    chain: tuple[Reference, ...]

    @property
    def tables(self) -> list[str]:
        """The view's table, and those along the chain."""
        return [self.sight.view.table, *(reference.table for reference in self.chain)]


def chains(catalog: Catalog, view: View) -> list[tuple[Reference, ...]]:
    """The chains of references that a view's rows look through."""
    found: dict[tuple[Reference, ...], None] = {}
    for path in view.paths:
        table = table_of(catalog.schema, view.table)
        chain: tuple[Reference, ...] = ()
        for step in path[:-1]:
            reference = reference_of(table, step, path)
            chain = (*chain, reference)
            found[chain] = None
            table = table_of(catalog.schema, reference.table)
    return list(found)


class Later:
    """What becomes of a table's rows behind a place: their entries, and what they referred to before.  It is on disk: a
    backlog may hold any number of them.
    """

    def __init__(self, start: int) -> None:
        self.scanned = start
        """Up to where the log was read."""
        self._start = start
        self._count = 0
        self._scratch = Scratch(_LATER)

    def add(self, entry: Entry, identities: Iterable[Identity], held: Identity, image: Image | None) -> None:
        """The next entry, of a row with these identities, which referred to something before it, or when it came in;
        ``image`` is the first that it tells, where the entry may stand elsewhere in the log."""
        first, *others = identities
        kept = None if image is None else pickle.dumps(image)
        with self._scratch.database() as database:
            for identity in (first, *others):
                database.execute("INSERT OR IGNORE INTO entry VALUES (?, ?)", (_spelled(identity), entry.id))
            about = (_spelled(held), _number(first), entry.id, entry.op == INSERT, _spelled(first), pickle.dumps(first))
            database.execute("INSERT OR REPLACE INTO referring VALUES (?, ?, ?, ?, ?, ?, ?)", (*about, kept))
        self._count += 1

    def knows(self, identity: Identity, place: int) -> bool:
        """Has the row an entry behind a place?"""
        if not self._scratch.is_open:
            return False
        with self._scratch.database() as database:
            about = (_spelled(identity), place)
            return database.execute("SELECT 1 FROM entry WHERE key = ? AND id > ?", about).fetchone() is not None

    def told(
        self, held: Identity, place: int, beyond: int | None, end: int | None, limit: int, *, ahead: bool
    ) -> list[tuple[int, Identity, Image | None]]:
        """The next rows by their numbers, between two, that referred to a record at a place: the entry that tells of
        each, and the image that is kept of it.

        ``limit`` is how many, or -1 for all; with ``ahead`` also those count that come in behind the place.
        """
        if not self._scratch.is_open:
            return []
        bounds = (_LOWEST if beyond is None else beyond + 1, _HIGHEST if end is None else end)
        with self._scratch.database() as database:
            rows = database.execute(_TOLD, (_spelled(held), place, *bounds, ahead, place, limit)).fetchall()
        return [(id_, pickle.loads(row), None if image is None else pickle.loads(image)) for id_, row, image in rows]

    def is_over(self, start: int) -> bool:
        """Has the reader passed all of it, or so much that what is left is better read again?"""
        return self.scanned <= start or (self._count > KEPT and 2 * (start - self._start) > self.scanned - self._start)

    def drop(self) -> None:
        """Forget all of it."""
        self._scratch.drop()


_LATER: Final = """
    CREATE TABLE entry (key TEXT, id INTEGER, PRIMARY KEY (key, id)) WITHOUT ROWID;
    CREATE TABLE referring (
        held TEXT, number INTEGER, id INTEGER, coming INTEGER, key TEXT, identity BLOB, image BLOB,
        PRIMARY KEY (held, number, key, id)) WITHOUT ROWID"""
_TOLD: Final = """
    SELECT id, identity, image FROM referring AS r
    WHERE held = ? AND id > ? AND number BETWEEN ? AND ? AND coming <= ?
        AND id = (SELECT min(id) FROM entry AS e WHERE e.key = r.key AND e.id > ?)
    ORDER BY number LIMIT ?"""
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


def _spelled(identity: Identity) -> str:
    """An identity as text; equal ones are the same."""
    return repr([int(value) if isinstance(value, float) and value.is_integer() else value for value in identity])


class Onlookers:
    """Finds them for one reader of the log, within one read at a time."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        names: Names,
        catalog: Catalog,
        entries: Entries,
        shapes: Mapping[str, Shape],
        history: History,
    ) -> None:
        self._connection = connection
        self._names = names
        self._catalog = catalog
        self._entries = entries
        self._shapes = shapes
        self._history = history
        self._later: dict[tuple[str, tuple[str, ...]], Later] = {}
        self._known: set[tuple[str, tuple[str, ...]]] = set()  # those that know all that this read can see
        self.begin(0, (), ())

    def begin(self, start: int, watches: Sequence[Watch], renames: Sequence[Entry]) -> None:
        """Begin a read behind ``start`` that will ask about these renamed records."""
        self._start = start
        self._known.clear()
        for wanted, later in list(self._later.items()):  # what is behind is kept: each read would go through all of it
            if later.is_over(start):
                later.drop()
                del self._later[wanted]
        self._markers: list[tuple[int, Marker]] | None = None
        self._pointing: dict[tuple[str, tuple[str, ...]], dict[Identity, list[Identity]]] = {}
        for watch in watches:
            reference, table = watch.chain[0], watch.sight.view.table
            asked = [entry for entry in renames if entry.table == reference.table]
            indexed = self._catalog.facts[table].is_indexed(reference.columns)
            if len(watch.chain) == 1 and len(asked) >= _MANY and not indexed:
                self._pointing[table, reference.columns] = self._find_all(table, reference, asked)

    def _find_all(self, table: str, reference: Reference, asked: Sequence[Entry]) -> dict[Identity, list[Identity]]:
        held = [tuple(entry.after().get(name) for name in reference.to) for entry in asked]
        found: dict[Identity, list[Identity]] = {values: [] for values in held}
        for number, *identity in self._joined(table, reference, [(i, *values) for i, values in enumerate(held)]):
            found[held[number]].append(tuple(identity))
        return {values: sorted(set(identities), key=sortable) for values, identities in found.items()}

    def _joined(
        self,
        table: str,
        reference: Reference,
        keys: Sequence[tuple[Any, ...]],
        more: str = "",
        bound: Sequence[int] = (),
    ) -> list[tuple[Any, ...]]:
        """Numbers of keys, with what tells the rows apart that refer to them."""
        facts = self._catalog.facts[table]
        affinities = [facts.affinities[name] for name in reference.columns]
        temporary = fill_keys(self._connection, "ids", keys, affinities)
        same = " AND ".join(f"t.{quote(name)} = k.k{i}" for i, name in enumerate(reference.columns))
        tables = [f"{quote(table)} AS t", f"{temporary} AS k"]
        if facts.is_indexed(reference.columns):
            tables.reverse()
        identity = ", ".join(f"t.{quote(name)}" for name in facts.identity)
        sql = f"SELECT k.i, {identity} FROM {' CROSS JOIN '.join(tables)} WHERE {same}{more}"
        return read_all(self._connection, sql, bound)

    # -- as of a place --------------------------------------------------------------------------------------------

    def chunks(self, watches: Sequence[Watch], entry: Entry, beyond: int | None) -> Iterator[Found]:
        """The rows that reach the entry's record through one of the chains (all of one view), as they were then.

        ``beyond`` is the last rowid that is known already.
        """
        noted = Noted.read(entry.note) if entry.op == NOTICE else self._not_assigned_by_us(entry.id)
        held = [self._held(watch, entry, noted) for watch in watches]
        last: int | None = beyond
        while True:
            found: Found = {}
            ends = []
            for watch, values in zip(watches, held, strict=True):
                for one in values:
                    rows, end = self._children(watch.sight.view.table, watch.chain[0], one, entry.id, last)
                    found |= rows
                    ends += [] if end is None else [end]
            table = watches[0].sight.view.table
            last = min(ends, default=None)
            yield {
                identity: row
                for identity, row in found.items()
                if noted.concerns(table, identity) and (last is None or _number(identity) <= last)
            }
            if last is None:
                return

    def _held(self, watch: Watch, entry: Entry, noted: Noted) -> list[Identity]:
        """What rows of the view's table have to hold to reach the entry's record."""
        chain, tables, image = watch.chain, watch.tables, entry.after()
        held = {tuple(image.get(name) for name in chain[-1].to)}
        for index in range(len(chain) - 1, 0, -1):
            held = self._between(tables[index], chain[index], chain[index - 1].to, held, entry.id, noted)
        return [values for values in held if None not in values]

    def _not_assigned_by_us(self, place: int) -> Noted:
        """Rows that got their reference by a later commit of ours, of which the log tells nothing, did not have it."""
        if self._markers is None:
            self._markers = self._entries.markers(self._start)
        only: dict[str, tuple[Identity, ...]] = {}
        but: dict[str, set[Identity]] = {}
        for id_, marker in self._markers:
            for table, rows in marker.assigned.items() if id_ > place else ():
                if rows is None:
                    only[table] = ()
                else:
                    but.setdefault(table, set()).update(rows)
        return Noted(only, but)

    def _between(
        self, table: str, reference: Reference, to: Sequence[str], held: set[Identity], place: int, noted: Noted
    ) -> set[Identity]:
        """By what rows on the way to the record are referred to themselves.

        Those that only come later are seen through already (see ``History``), so they are on the way as well.
        """
        columns = self._shapes[table].plan.columns
        places = [columns.index(name) for name in to]
        found: set[Identity] = set()
        for values in held:
            beyond: int | None = None
            while None not in values:
                rows, beyond = self._children(table, reference, values, place, beyond, ahead=True)
                found |= {tuple(row[i] for i in places) for key, row in rows.items() if noted.concerns(table, key)}
                if beyond is None:
                    break
        return found

    def _children(
        self,
        table: str,
        reference: Reference,
        values: Identity,
        place: int,
        beyond: int | None,
        *,
        ahead: bool = False,
    ) -> tuple[Found, int | None]:
        """The next rows that hold these values; and the last rowid among them when there may be more.

        With ``ahead`` also those that are inserted behind the place.
        """
        now = self._children_now(table, reference, values, beyond)
        end = _number(now[-1][0]) if len(now) == CHUNK and self._catalog.facts[table].rowid else None
        later = self._later_of(table, reference)
        found = {identity: row for identity, row in now if not later.knows(identity, place)}
        facts = self._catalog.facts[reference.table]
        wanted = tuple(comparable(value, facts, name) for value, name in zip(values, reference.to, strict=True))
        limit = CHUNK if self._catalog.facts[table].rowid else -1
        told = later.told(wanted, place, beyond, end, limit, ahead=ahead)
        for id_, identity, image in told:
            found[identity] = self._in_columns(table, image or _first(self._entries.one(id_)))
        if len(told) == limit:
            end = _number(told[-1][1])
        return found, end

    def _children_now(
        self, table: str, reference: Reference, values: Identity, beyond: int | None
    ) -> list[tuple[Identity, tuple[Storage, ...]]]:
        facts = self._catalog.facts[table]
        chosen = ", ".join(map(quote, (*facts.identity, *self._shapes[table].plan.columns)))
        known = self._pointing.get((table, reference.columns), {}).get(values)
        sql = f"SELECT {chosen} FROM {quote(table)} WHERE "
        if known is not None and facts.rowid:
            some = [identity for identity in known if beyond is None or _number(identity) > beyond][:CHUNK]
            same = f"{quote(facts.rowid)} = ?"
            rows = [row for identity in some for row in read_all(self._connection, sql + same, identity)]
        elif facts.rowid:
            rowid = quote(facts.rowid)
            behind = "" if beyond is None else f" AND {rowid} > {beyond}"
            sql += f"{_holds(reference)}{behind} ORDER BY {rowid} LIMIT {CHUNK}"
            rows = read_all(self._connection, sql, values)
        else:
            rows = read_all(self._connection, sql + _holds(reference), values)
        width = len(facts.identity)
        return [(row[:width], row[width:]) for row in rows]

    def _later_of(self, table: str, reference: Reference) -> Later:
        """What the log holds by now of the table's rows."""
        wanted = table, reference.columns
        later = self._later.setdefault(wanted, Later(self._start))
        if wanted in self._known:
            return later
        self._known.add(wanted)
        end = self._entries.settled(later.scanned)
        parent, facts = self._catalog.facts[reference.table], self._catalog.facts[table]
        for entry in self._entries.scan(later.scanned, [table]):
            if entry.op in (NOTICE, GONE):
                continue
            image = _first(entry)
            identity = (entry.rid,) if facts.rowid else tuple(image.get(name) for name in facts.identity)
            identities = dict.fromkeys((identity, self.own(entry)) if entry.op == UPDATE else (identity,))
            pairs = zip(reference.columns, reference.to, strict=True)
            held = tuple(comparable(image.get(name), parent, to) for name, to in pairs)
            is_moved = self._entries.doubt.is_any or entry.id <= self._entries.doubt.until
            later.add(entry, identities, held, image if is_moved else None)
            end = max(end, entry.id)
        later.scanned = end
        return later

    def _in_columns(self, table: str, image: Image) -> tuple[Storage, ...]:
        """An image in the order of the table's present columns."""
        return tuple(image.get(name) for name in self._shapes[table].plan.columns)

    def given(self, entry: Entry, replaced: Sequence[Entry], reference: Reference) -> Override:
        """What the record was before, where the history does not say so by itself."""
        target: Target = (reference.table, reference.to)
        identity = self._history.identity(target, entry.after())
        if entry.op == NOTICE:
            known = any(value is not None for value in entry.old)
            return {(target, identity): entry.before() if known else None}
        if entry.op == UPDATE:
            return {}
        gone = (one.before() for one in replaced)
        return {
            (target, identity): next((was for was in gone if self._history.identity(target, was) == identity), None)
        }

    def own(self, entry: Entry) -> Identity:
        """What tells the entry's own row apart behind it."""
        _, apart, _ = state(self._catalog, entry, entry.new, is_after=True)
        return apart if isinstance(apart, tuple) else (apart,)

    # -- records that arrive behind those that look them up -------------------------------------------------------

    def woken(self, watches: Sequence[Watch], entries: Sequence[Entry]) -> set[int]:
        """The inserted records that rows from before this read have been referring to already.

        Where a record goes and another one comes in its place, all that refer to it count, also such as refer to
        something else by now.
        """
        found: set[int] = set()
        for child, reference in dict.fromkeys((watch.tables[-2], watch.chain[-1]) for watch in watches):
            target: Target = (reference.table, reference.to)
            first: list[tuple[Any, ...]] = []
            again: list[tuple[Any, ...]] = []
            for entry in entries:
                if entry.op != INSERT or entry.table != reference.table:
                    continue
                image = entry.after()
                was = self._history.gone(target, self._history.identity(target, image), entry.id)
                if was is not None and any(was.get(name) != image.get(name) for name in entry.shape.plan.followed):
                    found.add(entry.id)
                else:
                    (first if was is None else again).append((entry.id, *(image.get(name) for name in reference.to)))
            for keys, more in ((first, self._not_assigned(child, reference)), (again, "")):
                if keys:
                    bound = (self._start,) * more.count("?")
                    found |= {row[0] for row in self._joined(child, reference, keys, more, bound)}
        return found

    def _not_assigned(self, table: str, reference: Reference) -> str:
        """Rows that did not get their reference behind the start of this read; those came out resolved."""
        conditions = []
        identity: list[str] = ["rid"]
        for number, shape in self._entries.shapes.items():
            columns = shape.plan.columns
            if shape.plan.table != table or not set(reference.columns) <= set(columns):
                continue
            places = [columns.index(name) for name in reference.columns]
            moved = " OR ".join(f"o{i} IS NOT n{i}" for i in places)
            conditions.append(f"shape = {number} AND (op = '{INSERT}' OR (op = '{UPDATE}' AND ({moved})))")
            if self._catalog.facts[table].rowid is None:
                keys = [columns.index(name) for name in self._catalog.facts[table].identity]
                identity = [f"CASE op WHEN '{INSERT}' THEN n{i} ELSE o{i} END" for i in keys]
        if not conditions:
            return ""
        mine = ", ".join(f"t.{quote(name)}" for name in self._catalog.facts[table].identity)
        chosen = f"SELECT {', '.join(identity)} FROM {self._names.log} WHERE id > ? AND ({' OR '.join(conditions)})"
        return f" AND ({mine}) NOT IN ({chosen})"


def _first(entry: Entry) -> Image:
    """The first that an entry tells of its row."""
    return entry.after() if entry.op == INSERT else entry.before()


def _holds(reference: Reference) -> str:
    return " AND ".join(f"{quote(name)} = ?" for name in reference.columns)


def _number(identity: Identity) -> int:
    """A rowid as a number."""
    return identity[0] if isinstance(identity[0], int) else 0


def sortable(identity: Identity) -> tuple[tuple[str, Any], ...]:
    """In one order, whatever the values are."""
    return tuple((type(value).__name__, value) for value in identity)
