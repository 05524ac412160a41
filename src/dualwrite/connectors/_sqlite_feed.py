# ruff: noqa: S608  (names go through quote(), values are bound)
"""The feed of an SQLite database: changes read out of the link's log.

A record that gets another key makes those that look it up look different: they come out behind it as changes of
their own.

Places: ``(id,)`` lies behind an entry of the log, whose own change is at ``(id - 1, 1)``; what it does to records that
look its record up is at ``(id - 1, view, row)``, the views numbered from 2.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualwrite.connectors._sql import quote, reference_of, table_of
from dualwrite.connectors._sqlite_capture import (
    GONE,
    INSERT,
    MARKER,
    NOTICE,
    REPLACED,
    UPDATE,
    Names,
    broken,
    current_shapes,
    is_installed,
    read_meta,
)
from dualwrite.connectors._sqlite_log import (
    Entries,
    Entry,
    Marker,
    Noted,
    end_of,
    in_order,
    instant,
    together,
)
from dualwrite.connectors._sqlite_natural import (
    LOOKBACK,
    History,
    Identity,
    Override,
    Sight,
    Target,
    comparable,
    is_renaming,
)
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import File, read_all
from dualwrite.connectors._sqlite_values import Storage
from dualwrite.connectors._sqlite_view import fill_keys
from dualwrite.errors import PositionLost, Usage
from dualwrite.model import ABSENT, Batch, Change, Key, Kind, Position, Row
from dualwrite.schema import Reference, View

Place = tuple[int, ...]
_LOOKAHEAD = 64
_NAP = 0.001


def key_of(view: View, row: Row) -> Key:
    """A row's natural key; a member that is not known counts as null."""
    return tuple(None if (cell := row[index]) is ABSENT else cell for index in view.key)


@dataclass(frozen=True, slots=True)
class Watch:
    """Rows of a view look through a chain of references at a table."""

    number: int
    sight: Sight
    chain: tuple[Reference, ...]


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


@dataclass
class Later:
    """What becomes of a table's rows behind the start of a read: their entries, and what they referred to before."""

    entries: dict[Identity, list[tuple[int, str]]] = field(default_factory=dict)
    referring: dict[Identity, list[tuple[int, Identity]]] = field(default_factory=dict)

    def first(self, identity: Identity, place: int) -> tuple[int, str] | None:
        """The row's first entry behind a place."""
        return next((entry for entry in self.entries.get(identity, ()) if entry[0] > place), None)


class LogReader:
    """Turns the log behind a place into changes of some views.  Reads inside the caller's transaction."""

    def __init__(
        self, connection: sqlite3.Connection, names: Names, catalog: Catalog, views: Sequence[View], place: Place
    ) -> None:
        self._connection = connection
        self._names = names
        self._catalog = catalog
        self.feed = read_meta(connection, names)["incarnation"]
        self._entries = Entries(connection, names)
        self._shapes = current_shapes(connection, names)
        self._history = History(connection, self._entries, catalog, views)
        self._sights: dict[str, list[Sight]] = {}
        self._watches: dict[str, list[Watch]] = {}
        for number, view in enumerate(sorted(views, key=lambda view: view.name), 2):
            sight = Sight(catalog, self._history, view)
            self._sights.setdefault(view.table, []).append(sight)
            for chain in chains(catalog, view):
                self._watches.setdefault(chain[-1].table, []).append(Watch(number, sight, chain))
        self._triggered = {name for name, facts in catalog.facts.items() if facts.triggers}
        self.place = place
        self.marker = self._entries.marker_at(place[0])
        self._later: dict[tuple[str, tuple[str, ...]], Later] = {}

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, limit: int, until: int | None = None) -> tuple[list[Change], bool]:
        """Up to about ``limit`` changes behind ``place``, which moves on; is there more to read?"""
        start = self.place[0]
        self._history.refresh(max(0, start - LOOKBACK))
        self._later.clear()
        self._markers: list[tuple[int, Marker]] | None = None
        entries, more = self._next(start, limit, until)
        woken = self._woken(entries, start)
        changes: list[Change] = []
        replaced: list[Entry] = []
        for entry in entries:
            if entry.op == MARKER:
                self.marker = Marker.read(entry.note or "")
            elif entry.op == REPLACED:
                replaced.append(entry)
                continue
            elif not self._emit(entry, replaced, entry.id in woken, limit, changes):
                return changes, True
            self.place, replaced = (entry.id,), []
        self._history.forget(self.place[0])
        return changes, more

    def _next(self, start: int, limit: int, until: int | None) -> tuple[list[Entry], bool]:
        entries = self._entries.read(start, limit + _LOOKAHEAD, *([] if until is None else [until]))
        cut = next((i for i in range(limit, len(entries)) if not together(entries[i - 1], entries[i])), len(entries))
        is_end = len(entries) < limit + _LOOKAHEAD
        now = self._now if is_end and until is None else self._lacking
        return in_order(entries, self._triggered, now)[:cut], cut < len(entries) or not is_end

    @staticmethod
    def _lacking(_: Entry) -> None:
        """More entries follow: what the row is now says nothing about this place."""

    def _now(self, entry: Entry) -> tuple[Storage, ...] | None:
        """What the row of an entry is now, in the order of its shape."""
        if not entry.shape.current:
            return None
        facts = self._catalog.facts[entry.table]
        image = entry.after()
        identity = [entry.rid] if facts.rowid else [image.get(name) for name in facts.key]
        same = " AND ".join(f"{quote(name)} = ?" for name in facts.identity)
        chosen = ", ".join(map(quote, entry.shape.plan.columns))
        rows = read_all(self._connection, f"SELECT {chosen} FROM {quote(entry.table)} WHERE {same}", identity)
        return rows[0] if rows else None

    def _emit(self, entry: Entry, replaced: list[Entry], woken: bool, limit: int, changes: list[Change]) -> bool:
        """Add what an entry has to tell; False when the batch is full before its end."""
        changes += [change for change in self._direct(entry, replaced) if change.position.place > self.place]
        if not woken and entry.op != NOTICE and not (entry.op == UPDATE and is_renaming(entry)):
            return True
        self.place = max(self.place, (entry.id - 1, 1))
        for change in self._looking_on(entry, replaced):
            if change.position.place <= self.place:
                continue
            if len(changes) >= limit:
                return False
            changes.append(change)
            self.place = change.position.place
        return True

    # -- changes of the record itself -----------------------------------------------------------------------------

    def _direct(self, entry: Entry, replaced: Sequence[Entry]) -> Iterator[Change]:
        if entry.op in (NOTICE, GONE):
            return
        for sight in self._sights.get(entry.table, ()):
            columns, after, before = entry.shape.plan.columns, None, None
            if entry.op in (INSERT, UPDATE):
                after = sight.row(columns, entry.new, entry.id)
            if entry.op != INSERT:
                becomes = entry.new if entry.op == UPDATE else ()
                before = sight.row(columns, entry.old, entry.id - 1, becomes=becomes)
            for gone in replaced:
                row = sight.row(columns, gone.old, gone.id - 1, becomes=())
                if before is None and after is not None and key_of(sight.view, row) == key_of(sight.view, after):
                    before = row
                else:
                    yield from self._change(sight.view, gone, (gone.id - 1, 1), row, None)
            yield from self._change(sight.view, entry, (entry.id - 1, 1), before, after)

    def _change(
        self, view: View, entry: Entry, place: Place, before: Row | None, after: Row | None
    ) -> Iterator[Change]:
        if before == after:
            return
        if before and after and any(before[i] is ABSENT and after[i] is not ABSENT for i in view.key):
            before = None  # nobody could know the record before
        row = before if before is not None else after
        assert row is not None
        kind = Kind.INSERT if before is None else Kind.DELETE if after is None else Kind.UPDATE
        position = Position(self.feed, place)
        marker = self.marker
        yield Change(
            view.name, kind, key_of(view, row), before, after, instant(entry.at), position, marker.seen, marker.number
        )

    # -- changes of those that look the record up -----------------------------------------------------------------

    def _looking_on(self, entry: Entry, replaced: Sequence[Entry]) -> Iterator[Change]:
        by_view: dict[int, list[Watch]] = {}
        for watch in self._watches.get(entry.table, ()):
            by_view.setdefault(watch.number, []).append(watch)
        for number, watches in sorted(by_view.items()):
            rows: dict[Identity, tuple[Storage, ...]] = {}
            given: dict[tuple[Target, Identity], Any] = {}
            for watch in watches:
                given |= self._given(entry, replaced, watch.chain[-1])
                rows |= self._onlookers(watch, entry)
            sight = watches[0].sight
            columns = self._shapes[sight.view.table].plan.columns
            for count, identity in enumerate(sorted(rows, key=_sortable), 1):
                place = identity[0] if len(identity) == 1 and isinstance(identity[0], int) else count
                before = sight.row(columns, rows[identity], entry.id - 1, given)
                after = sight.row(columns, rows[identity], entry.id)
                if any(now is not ABSENT and now != was for was, now in zip(before, after, strict=True)):
                    yield from self._change(sight.view, entry, (entry.id - 1, number, place), before, after)

    def _given(self, entry: Entry, replaced: Sequence[Entry], reference: Reference) -> Override:
        """What the record was before, where the history does not say so by itself."""
        target = (reference.table, reference.to)
        identity = self._history.identity(target, entry.after())
        if entry.op == NOTICE:
            known = any(value is not None for value in entry.old)
            return {(target, identity): entry.before() if known else None}
        if entry.op == UPDATE or any(self._history.identity(target, gone.before()) == identity for gone in replaced):
            return {}
        return {(target, identity): None}

    def _onlookers(self, watch: Watch, entry: Entry) -> dict[Identity, tuple[Storage, ...]]:
        """The rows that reach the entry's record through the chain at that place of the log, as they were then."""
        chain = watch.chain
        tables = [watch.sight.view.table, *(reference.table for reference in chain)]
        image = entry.after()
        held = {tuple(image.get(name) for name in chain[-1].to)}
        noted = Noted.read(entry.note) if entry.op == NOTICE else self._not_assigned_by_us(entry.id)
        for index in range(len(chain) - 1, 0, -1):
            held = self._between(tables[index], chain[index], chain[index - 1].to, held, noted)
        found: dict[Identity, tuple[Storage, ...]] = {}
        for values in held:
            if None not in values:
                found |= self._children(tables[0], chain[0], values, entry.id)
        return {identity: row for identity, row in found.items() if noted.concerns(tables[0], identity)}

    def _not_assigned_by_us(self, place: int) -> Noted:
        """Rows that got their reference by a later commit of ours, of which the log tells nothing, did not have it."""
        if self._markers is None:
            self._markers = self._entries.markers(self.place[0])
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
        self, table: str, reference: Reference, to: Sequence[str], held: set[Identity], noted: Noted
    ) -> set[Identity]:
        identity = self._catalog.facts[table].identity
        sql = f"SELECT {', '.join(map(quote, (*identity, *to)))} FROM {quote(table)} WHERE {_holds(reference)}"
        rows = (row for values in held for row in read_all(self._connection, sql, values))
        return {row[len(identity) :] for row in rows if noted.concerns(table, row[: len(identity)])}

    def _children(
        self, table: str, reference: Reference, values: Identity, place: int
    ) -> dict[Identity, tuple[Storage, ...]]:
        later = self._later_of(table, reference)
        now = self._children_now(table, reference, values)
        found = {identity: row for identity, row in now if later.first(identity, place) is None}
        facts = self._catalog.facts[reference.table]
        wanted = tuple(comparable(value, facts, name) for value, name in zip(values, reference.to, strict=True))
        for id_, identity in later.referring.get(wanted, ()):
            first = later.first(identity, place)
            if first is not None and first[0] == id_:
                found[identity] = self._image_of(table, id_)
        return found

    def _children_now(
        self, table: str, reference: Reference, values: Identity
    ) -> list[tuple[Identity, tuple[Storage, ...]]]:
        identity = self._catalog.facts[table].identity
        columns = self._shapes[table].plan.columns
        chosen = ", ".join(quote(name) for name in (*identity, *columns))
        sql = f"SELECT {chosen} FROM {quote(table)} WHERE {_holds(reference)}"
        rows = read_all(self._connection, sql, values)
        return [(row[: len(identity)], row[len(identity) :]) for row in rows]

    def _later_of(self, table: str, reference: Reference) -> Later:
        wanted = (table, reference.columns)
        if wanted in self._later:
            return self._later[wanted]
        later = self._later[wanted] = Later()
        parent = self._catalog.facts[reference.table]
        by_rowid = self._catalog.facts[table].rowid is not None
        start = self.place[0]
        for entry in self._entries.scan(start, [table]):
            if entry.op in (NOTICE, GONE):
                continue
            image = entry.after() if entry.op == INSERT else entry.before()
            key = self._catalog.facts[table].identity
            identity = (entry.rid,) if by_rowid else tuple(image.get(name) for name in key)
            later.entries.setdefault(identity, []).append((entry.id, entry.op))
            if entry.op != INSERT:
                pairs = zip(reference.columns, reference.to, strict=True)
                held = tuple(comparable(image.get(name), parent, to) for name, to in pairs)
                later.referring.setdefault(held, []).append((entry.id, identity))
        return later

    def _image_of(self, table: str, id_: int) -> tuple[Storage, ...]:
        """The old image of an entry in the order of the table's present columns."""
        entry = in_order(self._entries.read(id_ - 1, 2), self._triggered, self._lacking)[0]
        image = entry.before()
        return tuple(image.get(name) for name in self._shapes[table].plan.columns)

    # -- records that arrive behind those that look them up -------------------------------------------------------

    def _woken(self, entries: Sequence[Entry], start: int) -> set[int]:
        """The inserted records that rows from before this read have been referring to already."""
        found: set[int] = set()
        for table, watches in self._watches.items():
            inserted = [entry for entry in entries if entry.op == INSERT and entry.table == table]
            if not inserted:
                continue
            onlookers = {([w.sight.view.table, *(r.table for r in w.chain)][-2], w.chain[-1]) for w in watches}
            for child, reference in onlookers:
                found |= self._referred(child, reference, inserted, start)
        return found

    def _referred(self, table: str, reference: Reference, inserted: Sequence[Entry], start: int) -> set[int]:
        keys = [(entry.id, *(entry.after().get(name) for name in reference.to)) for entry in inserted]
        temporary = fill_keys(self._connection, "ids", keys, len(reference.to))
        same = " AND ".join(f"t.{quote(name)} = k.k{i}" for i, name in enumerate(reference.columns))
        tables = [f"{quote(table)} AS t", f"{temporary} AS k"]
        if self._catalog.facts[table].is_indexed(reference.columns):
            tables.reverse()
        source = " CROSS JOIN ".join(tables)
        sql = f"SELECT DISTINCT k.i FROM {source} WHERE {same}{self._not_assigned(table, reference)}"
        return {row[0] for row in self._connection.execute(sql, (start,) * sql.count("?"))}

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


def _holds(reference: Reference) -> str:
    return " AND ".join(f"{quote(name)} = ?" for name in reference.columns)


def _sortable(identity: Identity) -> tuple[tuple[str, Any], ...]:
    return tuple((type(value).__name__, value) for value in identity)


# -- the feed --------------------------------------------------------------------------------------------------------


def check_place(
    connection: sqlite3.Connection,
    names: Names,
    file: File,
    after: Position | None,
    acknowledged: Position | None = None,
) -> Place:
    """Where to read on; raises PositionLost when changes behind ``after`` are gone, or were let go by acknowledging."""
    if not is_installed(connection, names):
        raise Usage(f"{file.path}: link {names.link} is not installed in it", "start the link with `dualwrite run`")
    meta = read_meta(connection, names)
    let_go = acknowledged.place if acknowledged and acknowledged.feed == meta["incarnation"] else (0,)
    oldest = max((int(meta["trimmed"]),), let_go)
    if after is None:
        return oldest
    remedy = "stop the maps of this link and start them again with an initial sync"
    if after.feed != meta["incarnation"]:
        raise PositionLost(f"{file.path}: {after} is a position of another log: capture was installed anew", remedy)
    if after.place[:1] > (end_of(connection, names),):
        raise PositionLost(f"{file.path}: the log ends before {after}: the file was restored from a backup", remedy)
    lost = max(int(meta["lost"]), _last_change(connection, names, after.place[0], let_go[0]))
    if after.place < (lost,):
        raise PositionLost(f"{file.path}: changes that follow {after} are not kept any more (up to {lost})", remedy)
    return max(after.place, oldest)


def _last_change(connection: sqlite3.Connection, names: Names, after: int, until: int) -> int:
    """The last change between two places that is about to be trimmed."""
    if after >= until:
        return 0
    sql = f"SELECT max(id) FROM {names.log} WHERE op <> '{MARKER}' AND id > ? AND id <= ?"
    return int(connection.execute(sql, (after, until)).fetchone()[0] or 0)


class SqliteFeed:
    """Follows a link's log on a connection of its own; looks every millisecond whether somebody has committed."""

    def __init__(
        self,
        file: File,
        names: Names,
        catalog: Callable[[sqlite3.Connection], Catalog],
        views: Sequence[View],
        after: Position | None,
        acknowledged: Position | None = None,
    ) -> None:
        self._file = file
        self._names = names
        self._load = catalog
        self._views = tuple(views)
        self._connection = file.connect()
        self._seen_version: int | None = None
        self._more = False
        try:
            with file.errors(), Reading(self._connection):
                self._reader = self._open(check_place(self._connection, names, file, after, acknowledged))
        except BaseException:
            self._connection.close()
            raise

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``."""
        end = time.monotonic() + timeout
        with self._file.errors():
            while True:
                version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
                if version != self._seen_version or self._more:
                    before = self._reader.place
                    changes = self._read(max(limit, 1))
                    self._seen_version = version
                    if changes or (self._reader.place != before and not self._more):
                        return self._batch(changes)
                if self._more:
                    continue
                if time.monotonic() >= end:  # also behind a read in vain: a read-only file's version always moves
                    return self._batch([])
                time.sleep(_NAP)

    def close(self) -> None:
        """See ``Feed``."""
        self._connection.close()

    def _batch(self, changes: Sequence[Change]) -> Batch:
        reader = self._reader
        return Batch(tuple(changes), Position(reader.feed, reader.place), reader.marker.seen, reader.marker.number)

    def _read(self, limit: int) -> list[Change]:
        with Reading(self._connection):
            version = int(self._connection.execute("PRAGMA schema_version").fetchone()[0])
            position = Position(self._reader.feed, self._reader.place)
            check_place(self._connection, self._names, self._file, position)
            if version != self._version:
                self._reader = self._open(self._reader.place)
            changes, self._more = self._reader.read(limit)
        return changes

    def _open(self, place: Place) -> LogReader:
        catalog = self._load(self._connection)
        self._version = catalog.version
        tables = {view.table for view in self._views}
        lost = broken(self._connection, self._names, catalog, tables)
        if lost:
            raise PositionLost(
                f"{self._file.path}: the triggers on {', '.join(sorted(lost))} are gone or were changed (was the table "
                "re-created?), so changes may have been missed",
                "stop the maps of these tables and start them again with an initial sync",
            )
        return LogReader(self._connection, self._names, catalog, self._views, place)


class Reading:
    """A read transaction: one state of the database for everything inside."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *exc: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
