"""Reads the link's log as changes in natural form.

A record that gets another key makes those that look it up look different: they come out behind it as changes of
their own.

Places: ``(id,)`` lies behind an entry of the log, whose own change is at ``(id - 1, 1)``; what it does to records that
look its record up is at ``(id - 1, view, row)``, the views numbered from 2.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from dualwrite.connectors._sqlite_capture import (
    GONE,
    INSERT,
    MARKER,
    NOTICE,
    REPLACED,
    UPDATE,
    Names,
    current_shapes,
    read_meta,
)
from dualwrite.connectors._sqlite_log import Entries, Marker, instant
from dualwrite.connectors._sqlite_natural import LOOKBACK, History, Override, Sight, is_renaming
from dualwrite.connectors._sqlite_onlookers import Onlookers, Watch, chains, sortable
from dualwrite.connectors._sqlite_order import Entry
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.model import ABSENT, Batch, Change, Key, Kind, Position, Row
from dualwrite.schema import View

Place = tuple[int, ...]


def key_of(view: View, row: Row) -> Key:
    """A row's natural key; a member that is not known counts as null."""
    return tuple([None if (cell := row[index]) is ABSENT else cell for index in view.key])


class LogReader:
    """Turns the log behind a place into changes of some views.  Reads inside the caller's transaction."""

    def __init__(
        self, connection: sqlite3.Connection, names: Names, catalog: Catalog, views: Sequence[View], place: Place
    ) -> None:
        self.views = tuple(views)
        self.catalog = catalog
        self.connection = connection
        self._names = names
        self.feed = read_meta(connection, names)["incarnation"]
        self._entries = Entries(connection, names, catalog)
        self._shapes = current_shapes(connection, names)
        self._history = History(connection, self._entries, catalog, views)
        self._sights: dict[str, list[Sight]] = {}
        self._watches: dict[str, list[Watch]] = {}
        for number, view in enumerate(sorted(views, key=lambda view: view.name), 2):
            sight = Sight(catalog, self._history, view)
            self._sights.setdefault(view.table, []).append(sight)
            # another engine may have ended the capture of the table: then nobody is to hear of its records any more
            for chain in chains(catalog, view) if view.table in self._shapes else ():
                self._watches.setdefault(chain[-1].table, []).append(Watch(number, sight, chain))
        self.place = place
        self.marker = self._entries.marker(0, place[0]) or Marker()
        self._onlookers = Onlookers(connection, names, catalog, self._entries, self._shapes, self._history)

    # -- reading --------------------------------------------------------------------------------------------------

    def skip(self, place: Place) -> None:
        """Go on from a place further behind."""
        self.marker = self._entries.marker(self.place[0], place[0]) or self.marker
        self.place = place

    def read(self, limit: int) -> tuple[list[Change], bool]:
        """Up to about ``limit`` changes behind ``place``, which moves on; is there more to read?"""
        start = self.place[0]
        self._history.refresh(max(0, start - LOOKBACK))
        entries, more = self._entries.read(start, limit)
        watches = [watch for some in self._watches.values() for watch in some]
        self._onlookers.begin(start, watches, [entry for entry in entries if _tells_onlookers(entry)])
        woken = self._onlookers.woken(watches, entries)
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

    def batch(self, changes: Sequence[Change]) -> Batch:
        """Changes that end where the reader is."""
        return Batch(tuple(changes), Position(self.feed, self.place), self.marker.seen, self.marker.number)

    def _emit(self, entry: Entry, replaced: list[Entry], woken: bool, limit: int, changes: list[Change]) -> bool:
        """Add what an entry has to tell; False when the batch is full before its end."""
        changes += [change for change in self._direct(entry, replaced) if change.position.place > self.place]
        if not woken and not _tells_onlookers(entry):
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
            columns = entry.shape.plan.columns
            before: Row | None = None
            after: Row | None = None
            if entry.op == UPDATE:
                before, after = sight.both(columns, entry.old, entry.new, entry.id)
            elif entry.op == INSERT:
                after = sight.row(columns, entry.new, entry.id)
            else:
                before = sight.row(columns, entry.old, entry.id - 1, becomes=())
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
        if before and after and ABSENT in before and any(before[i] is ABSENT is not after[i] for i in view.key):
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
            outer = (entry.id - 1, number)
            if self.place[:2] <= outer:
                passed = self.place[2] if self.place[:2] == outer else None
                yield from self._of_view(entry, replaced, watches, outer, passed)

    def _of_view(
        self, entry: Entry, replaced: Sequence[Entry], watches: Sequence[Watch], outer: Place, passed: int | None
    ) -> Iterator[Change]:
        """The onlookers of one view, behind the one that was ``passed``."""
        sight = watches[0].sight
        shape = self._shapes[sight.view.table]
        by_rowid = self.catalog.facts[sight.view.table].rowid is not None
        given: Override = {}
        for watch in watches:
            given = {**given, **self._onlookers.given(entry, replaced, watch.chain[-1])}
        told = self._onlookers.own(entry) if entry.table == sight.view.table and entry.op != NOTICE else None
        for rows in self._onlookers.chunks(watches, entry, passed if by_rowid else None):
            if told is not None:
                rows.pop(told, None)  # its own change has shown it
            for count, identity in enumerate(sorted(rows, key=sortable), 1):
                inner = identity[0] if by_rowid and isinstance(identity[0], int) else count
                before = sight.row(shape.plan.columns, rows[identity], entry.id - 1, given)
                after = sight.row(shape.plan.columns, rows[identity], entry.id)
                if any(now is not ABSENT and now != was for was, now in zip(before, after, strict=True)):
                    yield from self._change(sight.view, entry, (*outer, inner), before, after)


class KeptReader:
    """The reader of one connection's transactions, kept from one to the next.

    They go on where the last one ended: nobody has to look for the last marker before a long backlog each time.
    """

    def __init__(self) -> None:
        self._reader: LogReader | None = None

    def at(
        self, connection: sqlite3.Connection, names: Names, catalog: Catalog, views: Sequence[View], place: Place
    ) -> LogReader:
        """A reader of these views from a place on."""
        kept = self._reader
        if (
            kept is None
            or kept.connection is not connection
            or kept.catalog is not catalog
            or kept.views != tuple(views)
            or kept.feed != read_meta(connection, names)["incarnation"]
            or kept.place > place
        ):
            self._reader = kept = LogReader(connection, names, catalog, views, place)
        else:
            kept.skip(place)
        return kept


def _tells_onlookers(entry: Entry) -> bool:
    """Do those that look the record up look different by it?"""
    return entry.op == NOTICE or (entry.op == UPDATE and is_renaming(entry))
