# ruff: noqa: S608  (names go through quote(), values are bound)
"""Echo and effects: what a transaction of ours has caused besides what it wrote.

Where nothing else can touch a table (no triggers, acting foreign keys, generated values), our writes are simply not
logged.  Elsewhere the triggers log them as our own, and at the end each row is held against what we wrote of it: what
differs is a change of this side and stays in the log, behind the marker, with what we wrote as its before-image.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from operator import itemgetter

from dualwrite.connectors._sql import quote
from dualwrite.connectors._sqlite_capture import (
    DELETE,
    GONE,
    INSERT,
    NORMAL,
    NOTICE,
    OWN,
    SILENT,
    UPDATE,
    Names,
    Shape,
    current_shapes,
)
from dualwrite.connectors._sqlite_log import Entries, Noted, end_of
from dualwrite.connectors._sqlite_natural import comparable
from dualwrite.connectors._sqlite_order import Entry
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import read_all
from dualwrite.connectors._sqlite_values import Storage, decoder
from dualwrite.connectors._sqlite_view import fill_keys
from dualwrite.schema import Reference

Identity = tuple[Storage, ...]
Values = dict[str, Storage]
_FEW = 20_000
"""Rows that are quickly read through."""
_NAMED = 100
"""Rows that a marker names; more are counted as all of their table."""


@dataclass(slots=True)
class Shadow:
    """A row that something of this transaction has touched: as our writes alone would have left it, and as it is.

    ``is_new``: the transaction has made it.  Little is held of each: one of our deletes may cascade to very many.
    """

    shape: Shape
    at: float
    rid: Storage
    is_new: bool
    wanted: Values | None
    actual: Values | None


@dataclass
class Intents:
    """What one set of statements of ours did to a table's rows.

    ``updated``: the columns that we set, and those that we found as wanted (``confirmed``).
    """

    table: str
    inserted: dict[Identity, Values] = field(default_factory=dict)
    updated: dict[Identity, Values] = field(default_factory=dict)
    confirmed: dict[Identity, tuple[str, ...]] = field(default_factory=dict)
    deleted: set[Identity] = field(default_factory=set)


@dataclass
class State:
    """All that is known of the open transaction; to be taken back together with a savepoint."""

    mode: int = NORMAL
    read: int = 0
    shadows: dict[tuple[str, Identity], Shadow] = field(default_factory=dict)
    finished: list[Shadow] = field(default_factory=list)
    woken: dict[tuple[str, tuple[str, ...], Identity], dict[str, list[Identity]]] = field(default_factory=dict)
    moving: dict[tuple[str, Identity], Values] = field(default_factory=dict)
    gone: list[tuple[str, Values]] = field(default_factory=list)
    mine: dict[str, set[Identity]] = field(default_factory=dict)
    ranges: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    assigned: dict[str, set[Identity] | None] = field(default_factory=dict)


class Effects:
    """What the open transaction has caused."""

    def __init__(self, connection: sqlite3.Connection, names: Names, catalog: Catalog) -> None:
        self._connection = connection
        self._names = names
        self._catalog = catalog
        self.shapes = current_shapes(connection, names)
        self._entries: Entries | None = None
        self._state = State()

    @property
    def is_watching(self) -> bool:
        """Do the triggers log what we do?"""
        return self._entries is not None

    @property
    def assigned(self) -> dict[str, set[Identity] | None]:
        """The rows whose references we set, per table; None where they are many."""
        return self._state.assigned

    def save(self) -> State:
        """What is known now, before a savepoint."""
        return deepcopy(self._state)

    def restore(self, state: State) -> None:
        """Everything since the savepoint was rolled back."""
        self._state = state

    # -- what to log ----------------------------------------------------------------------------------------------

    def watch(self, table: str, kind: str, columns: Iterable[str]) -> bool:
        """Prepare for statements of a kind that set these columns; must what they cause be watched?"""
        loud = self._state.mode == OWN or self._is_loud(table, kind, set(columns))
        mode = OWN if loud else SILENT
        if mode == OWN and self._entries is None:
            self._entries = Entries(self._connection, self._names, self._catalog)
            self._state.read = end_of(self._connection, self._names)
        self._set(mode)
        return loud

    def _set(self, mode: int) -> None:
        if mode != self._state.mode:
            self._connection.execute(f"UPDATE {self._names.mode} SET mode = ?", (mode,))
            self._state.mode = mode

    def _is_loud(self, table: str, kind: str, columns: set[str]) -> bool:
        facts = self._catalog.facts[table]
        if facts.triggers or facts.overrides:
            return True
        if kind != INSERT and self._acts(table, kind, columns):
            return True
        shape = self.shapes.get(table)
        if shape is None or kind == DELETE:
            return False
        shown = set(shape.plan.shown)
        return bool(shown & facts.generated) or (kind == INSERT and bool((shown & facts.defaults) - columns))

    def _acts(self, table: str, kind: str, columns: set[str]) -> bool:
        return any(
            key.acts and (kind == DELETE or columns & set(key.to)) for _, key in self._catalog.pointing_at(table)
        )

    # -- what happened --------------------------------------------------------------------------------------------

    def settle(self, intents: Intents) -> None:
        """Take note of what the triggers have logged since the last time, and of what we meant to do."""
        if self._entries is None:
            return
        before = {
            identity: dict(shadow.actual)
            for identity in intents.confirmed
            if (shadow := self._state.shadows.get((intents.table, identity))) is not None and shadow.actual is not None
        }
        for entry in self._entries.own(self._state.read):
            self._note(entry, intents)
            self._state.read = entry.id
        for identity in {*intents.updated, *intents.confirmed}:
            shadow = self._state.shadows.get((intents.table, identity))
            if shadow is None:
                continue
            if shadow.wanted is None:
                shadow.wanted = dict(shadow.actual or {})
            old = before.get(identity, {})
            shadow.wanted |= {name: old[name] for name in intents.confirmed.get(identity, ()) if name in old}
            mine = intents.updated.get(identity, {})
            shadow.wanted |= {name: value for name, value in mine.items() if name in shadow.shape.plan.columns}

    def _note(self, entry: Entry, intents: Intents) -> None:
        table = entry.table
        ours = table == intents.table
        if entry.op == INSERT:
            identity = self._identity(entry, dict(entry.after()))
            self._finish(table, identity)
            blank: Values = dict.fromkeys(entry.shape.plan.columns)
            mine = intents.inserted.pop(identity, None) if ours else None
            wanted = None if mine is None else {name: mine.get(name) for name in blank}
            shadow = Shadow(entry.shape, entry.at, entry.rid, is_new=True, wanted=wanted, actual=dict(entry.after()))
            self._state.shadows[table, identity] = shadow
            return
        identity = self._identity(entry, dict(entry.before()))
        known = self._state.shadows.get((table, identity))
        if known is not None:
            shadow = known
        else:
            old = dict(entry.before())
            shadow = Shadow(entry.shape, entry.at, entry.rid, is_new=False, wanted=old, actual=None)
            self._state.shadows[table, identity] = shadow
        shadow.actual = dict(entry.after()) if entry.op == UPDATE else None
        if entry.op == UPDATE:
            self._move(table, identity, entry, intents)
        elif ours and identity in intents.deleted:
            intents.deleted.discard(identity)
            shadow.wanted = None

    def _move(self, table: str, identity: Identity, entry: Entry, intents: Intents) -> None:
        """Follow a row that got another rowid or primary key."""
        now = self._identity(entry, dict(entry.after()))
        if now != identity and None not in now:
            self._state.shadows[table, now] = self._state.shadows.pop((table, identity))
            if table == intents.table:
                for known in (intents.updated, intents.confirmed):
                    if identity in known:
                        known[now] = known.pop(identity)  # type: ignore[assignment]

    def _identity(self, entry: Entry, image: Values) -> Identity:
        facts = self._catalog.facts[entry.table]
        if facts.rowid is None or facts.rowid in image:
            return self.identity(entry.table, image)
        return (entry.rid,)

    def identity(self, table: str, values: Mapping[str, Storage]) -> Identity:
        """What tells a row with these values apart."""
        facts = self._catalog.facts[table]
        return tuple(comparable(values.get(name), facts, name) for name in facts.identity)

    def _finish(self, table: str, identity: Identity) -> None:
        shadow = self._state.shadows.pop((table, identity), None)
        if shadow is not None:
            self._state.finished.append(shadow)

    # -- records that others referred to already --------------------------------------------------------------

    def arrived(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Storage]]) -> None:
        """We wrote rows of these columns into a table: those whose lookups led nowhere may find their records now."""
        shape = self.shapes.get(table)
        if shape is None or not rows or not set(columns) & set(shape.plan.followed):
            return
        for child, reference in self._references_to(table):
            if set(reference.to) <= set(columns) and self._is_quick(child, reference):
                keys = itemgetter(*map(columns.index, reference.to))
                one = len(reference.to) == 1
                self._wake(shape, child, reference, [(keys(row),) if one else keys(row) for row in rows])

    def _references_to(self, table: str) -> Iterator[tuple[str, Reference]]:
        for child in self.shapes:
            for reference in self._catalog.schema.tables[child].references:
                if reference.table == table:
                    yield child, reference

    def _is_quick(self, child: str, reference: Reference) -> bool:
        """Can the rows that hold a reference be found without keeping the write lock for long?"""
        facts = self._catalog.facts[child]
        if facts.is_indexed(reference.columns):
            return True
        row = f"max({quote(facts.rowid)})" if facts.rowid else "count(*)"
        return int(self._connection.execute(f"SELECT {row} FROM {quote(child)}").fetchone()[0] or 0) <= _FEW

    def _wake(self, shape: Shape, child: str, reference: Reference, named: Sequence[tuple[Storage, ...]]) -> None:
        keys = [(number, *key) for number, key in enumerate(named)]
        affinities = [self._catalog.facts[child].affinities[name] for name in reference.columns]
        temporary = fill_keys(self._connection, "ids", keys, affinities)
        same = " AND ".join(f"t.{quote(name)} = k.k{i}" for i, name in enumerate(reference.columns))
        tables = [f"{quote(child)} AS t", f"{temporary} AS k"]
        if self._catalog.facts[child].is_indexed(reference.columns):
            tables.reverse()
        identity = ", ".join(f"t.{quote(name)}" for name in self._catalog.facts[child].identity)
        sql = f"SELECT k.i, {identity} FROM {' CROSS JOIN '.join(tables)} WHERE {same}"
        for number, *found in self._connection.execute(sql):
            held = tuple(keys[number][1:])
            woken = self._state.woken.setdefault((shape.plan.table, reference.to, held), {})
            woken.setdefault(child, []).append(tuple(found))

    def _tell_woken(self) -> None:
        for (table, to, held), rows in self._state.woken.items():
            image = current_image(self._connection, self.shapes[table], to, held)
            if image is not None:
                self._notice(self.shapes[table], None, image, Noted(only=rows))

    def _notice(self, shape: Shape, old: Values | None, new: Values, noted: Noted) -> None:
        write_entry(self._connection, self._names, shape, NOTICE, None, old, new, note=noted.text())

    # -- records that we rename or delete -------------------------------------------------------------------------

    def before(self, table: str, kind: str, columns: Iterable[str], identities: Iterable[Identity]) -> None:
        """Look at records that others look up, and that are about to go or to change in what those see of them."""
        shape, by = self.shapes.get(table), self._catalog.facts[table].identity
        if shape is None or not shape.plan.followed or kind == INSERT:
            return
        if kind == UPDATE and set(columns).isdisjoint(shape.plan.followed):
            return
        for identity in identities:
            if (table, identity) not in self._state.moving:
                image = current_image(self._connection, shape, by, identity)
                if image is not None:
                    self._state.moving[table, identity] = image

    def deleted(self, table: str, identities: Iterable[Identity]) -> None:
        """We deleted these rows."""
        for identity in identities:
            image = self._state.moving.pop((table, identity), None)
            if image is not None:
                self._state.gone.append((table, image))

    def wrote(self, table: str, identities: Sequence[Identity], columns: Iterable[str] = ()) -> None:
        """The link has said itself what these rows look like, and set these columns: they need not be told."""
        self._state.mine.setdefault(table, set()).update(identities)
        self._assign(table, columns, identities)

    def _assign(self, table: str, columns: Iterable[str], identities: Iterable[Identity]) -> None:
        """We set these columns; note the rows where they are references."""
        references = self._catalog.schema.tables[table].references
        if not any(set(reference.columns) & set(columns) for reference in references):
            return
        known = self._state.assigned.setdefault(table, set())
        if known is not None:
            known.update(identities)
            if len(known) > _NAMED:
                self._state.assigned[table] = None

    def last_row(self, table: str) -> int:
        """The largest rowid, 0 for tables without."""
        rowid = self._catalog.facts[table].rowid
        if rowid is None:
            return 0
        row = self._connection.execute(f"SELECT max({quote(rowid)}) FROM {quote(table)}").fetchone()
        return int(row[0] or 0)

    def inserted(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Storage]], last: int) -> None:
        """We inserted rows of these columns; those that did not say their rowid came behind ``last``."""
        facts = self._catalog.facts[table]
        named = rows if set(facts.identity) <= set(columns) else ()
        self.wrote(table, [self.identity(table, dict(zip(columns, row, strict=True))) for row in named], columns)
        if facts.rowid is not None and len(named) < len(rows):
            first, now = last + 1, self.last_row(table)
            self._state.ranges.setdefault(table, []).append((first, now))
            self._assign(table, columns, ((row,) for row in range(first, min(now, first + _NAMED) + 1)))

    def _tell_gone(self) -> None:
        """What users did before, and what came of our own deletes, may refer to records that are not there any more."""
        for table, image in self._state.gone:
            write_entry(self._connection, self._names, self.shapes[table], GONE, None, image, None)

    def _tell_moved(self) -> None:
        """Records that others see under another key now, or do not find any more by what they hold."""
        if not self._state.moving:
            return
        mine = {table: list(rows) for table, rows in self._state.mine.items()}
        for table, ranges in self._state.ranges.items():
            mine.setdefault(table, []).extend((row,) for first, last in ranges for row in range(first, last + 1))
        for (table, identity), old in self._state.moving.items():
            shape = self.shapes[table]
            new = current_image(self._connection, shape, self._catalog.facts[table].identity, identity)
            if new is None:
                write_entry(self._connection, self._names, shape, GONE, None, old, None)
            elif any(new[name] != old[name] for name in shape.plan.followed):
                self._notice(shape, old, new, Noted(but=mine))

    # -- at the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Leave in the log what is not ours (the marker stands there already), and log others again."""
        if self._entries is not None:
            self._connection.execute(f"DELETE FROM {self._names.log} WHERE own = 1")
            shadows = [*self._state.finished, *self._state.shadows.values()]
            for shadow in filter(self._differs, shadows):
                self._leave(shadow)
        self._tell_gone()
        self._tell_woken()
        self._tell_moved()
        self._set(NORMAL)

    def _differs(self, shadow: Shadow) -> bool:
        if shadow.wanted is None or shadow.actual is None:
            return shadow.wanted is not shadow.actual
        plan = shadow.shape.plan
        table = self._catalog.schema.tables[plan.table]
        for name in plan.shown if shadow.is_new else {*plan.shown, *plan.followed}:
            wanted, actual = shadow.wanted.get(name), shadow.actual.get(name)
            column = table.column(name)
            if wanted is None or actual is None or column is None:
                if wanted is not actual:
                    return True
            elif wanted != actual and decoder(column)(wanted) != decoder(column)(actual):
                return True
        return False

    def _leave(self, shadow: Shadow) -> None:
        op = INSERT if shadow.wanted is None else DELETE if shadow.actual is None else UPDATE
        images = shadow.wanted, shadow.actual
        write_entry(self._connection, self._names, shadow.shape, op, shadow.rid, *images, shadow.at)


def write_entry(
    connection: sqlite3.Connection,
    names: Names,
    shape: Shape,
    op: str,
    rid: Storage,
    old: Mapping[str, Storage] | None,
    new: Mapping[str, Storage] | None,
    at: float | None = None,
    note: str | None = None,
) -> None:
    """Put an entry into the log ourselves."""
    columns = shape.plan.columns
    images: dict[str, Storage] = {}
    images |= {f"o{i}": old.get(name) for i, name in enumerate(columns)} if old is not None else {}
    images |= {f"n{i}": new.get(name) for i, name in enumerate(columns)} if new is not None else {}
    values: Sequence[Storage] = (shape.number, op, at, rid, note, *images.values())
    places = ", ".join(["?", "?", "coalesce(?, julianday('now'))", "0", "?", "?", *("?" for _ in images)])
    fields = ", ".join(["shape, op, at, own, rid, note", *images])
    connection.execute(f"INSERT INTO {names.log} ({fields}) VALUES ({places})", values)


def current_image(
    connection: sqlite3.Connection, shape: Shape, by: Sequence[str], held: Sequence[Storage]
) -> Values | None:
    """The captured columns, as they are now, of the row that holds these values."""
    columns = shape.plan.columns
    same = " AND ".join(f"{quote(name)} = ?" for name in by)
    sql = f"SELECT {', '.join(map(quote, columns))} FROM {quote(shape.plan.table)} WHERE {same}"
    rows = read_all(connection, sql, tuple(held))
    return dict(zip(columns, rows[0], strict=True)) if rows else None


class Unmarked(Effects):
    """What a transaction causes that is not marked as ours: the triggers log all of it, as they do for users."""

    def watch(self, table: str, kind: str, columns: Iterable[str]) -> bool:  # noqa: ARG002
        """Nothing has to be held against what we wrote."""
        return False
