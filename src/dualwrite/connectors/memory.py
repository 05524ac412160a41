"""An in-memory system: the connector that engine tests run on, with every promise of ``base`` kept.

The database itself, with its users, triggers and log, is ``_memory.MemoryDatabase``; it outlives connectors, so a
crash of dualwrite is a connector thrown away.  Within one ``write`` the records are looked up first and uniques are
checked last, as a set-based statement does, so values may be swapped; one call should hold one write per key.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import islice
from typing import Any, assert_never

from dualwrite.connectors._memory import (
    Backup,
    Capture,
    Commit,
    Lens,
    Link,
    Marker,
    MemoryDatabase,
    Record,
    Refused,
    Session,
    Spot,
    Tables,
    Trigger,
    User,
    fold,
    key_of,
)
from dualwrite.connectors.base import Capabilities, Remembered
from dualwrite.errors import Problem, Unavailable, Usage
from dualwrite.expression import And, Compare, Expression, Not, OneOf, Or
from dualwrite.model import (
    ABSENT,
    Applied,
    Batch,
    Cell,
    Change,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Path,
    Position,
    Rejected,
    Row,
    Side,
    Unchanged,
    Value,
    Write,
    show_key,
    show_path,
)
from dualwrite.schema import Column, Lookup, Schema, TypeName, View

__all__ = ["Backup", "MemoryConnector", "MemoryDatabase", "Refused", "Trigger", "User", "open_memory", "register"]

_databases: dict[str, MemoryDatabase] = {}
BLOCK = 1000
"""Rows per block of a snapshot."""


def register(database: MemoryDatabase) -> None:
    """Let ``memory://NAME`` find the database, in this process."""
    _databases[database.name] = database


def open_memory(url: str, *, link: str, side: Side, declared: Schema | None = None) -> MemoryConnector:
    """The connector for ``memory://NAME``; the database must have been registered."""
    name = url.removeprefix("memory://")
    if name not in _databases:
        raise Usage(f"{side}: there is no memory database {name!r} in this process", "register it, or use another url")
    return MemoryConnector(_databases[name], link, declared)


class MemoryConnector:
    """A link's access to a memory database.  Declared tables replace the database's own of the same name."""

    capabilities = Capabilities()

    def __init__(self, database: MemoryDatabase, link: str = "link", declared: Schema | None = None) -> None:
        """Connect to the database as this link."""
        self._database = database
        self._name = link
        self._schema = Schema({**database.schema.tables, **(declared.tables if declared else {})})
        self._lens = Lens(self._schema)
        self._open: list[MemoryTransaction] = []

    def identity(self) -> str:
        """See ``Connector``."""
        return f"memory:{self._database.name}"

    def schema(self) -> Schema:
        """See ``Connector``."""
        self._online()
        return self._schema

    def health(self, views: Sequence[View]) -> list[Problem]:  # noqa: ARG002  (there is nothing that can be missing)
        """See ``Connector``."""
        self._online()
        return []

    def install(self, views: Sequence[View]) -> None:
        """See ``Connector``."""
        self._online().install(self._name, Capture(self._schema, views))

    def uninstall(self) -> None:
        """See ``Connector``."""
        self._online().uninstall(self._name)

    @contextmanager
    def snapshot(self, view: View) -> Iterator[MemorySnapshot]:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            yield_from, boundary = database.tables, self.end()
        yield MemorySnapshot(view, self._lens, yield_from, boundary)

    def end(self) -> Position:
        """See ``Connector``."""
        link = self._online().links.get(self._name)
        return link.end() if link else Position("", ())

    def feed(self, views: Sequence[View], after: Position | None) -> MemoryFeed:
        """See ``Connector``."""
        return MemoryFeed(self._online(), self._name, views, after)

    def acknowledge(self, position: Position) -> None:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            link_of(database, self._name).trim(position)

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Connector``."""
        return _fetch(self._lens, self._online().tables, view, keys)

    def transaction(self, stream: str, views: Sequence[View] = ()) -> MemoryTransaction:
        """See ``Connector``."""
        transaction = MemoryTransaction(self._online(), self._name, self._lens, stream, views)
        self._open = [*(t for t in self._open if t.is_open), transaction]
        return transaction

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            link = database.links.get(self._name)
            return {s: (position, link.number) for s, position in link.positions.items()} if link else {}

    def remembered(self, kind: str) -> list[Remembered]:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            link = database.links.get(self._name)
            entries = [*link.gone, *link.kept.values()] if link else []
        return [entry for entry in entries if entry.kind == kind]

    def clock(self) -> float:
        """See ``Connector``."""
        return self._online().now()

    def close(self) -> None:
        """Roll back what is open, as a database does when its client is gone."""
        for transaction in self._open:
            transaction.rollback()

    def _online(self) -> MemoryDatabase:
        return online(self._database)


def online(database: MemoryDatabase) -> MemoryDatabase:
    """The database, when it answers."""
    if database.offline:
        raise Unavailable(f"the memory database {database.name} is offline", "it is tried again by itself")
    return database


def link_of(database: MemoryDatabase, name: str) -> Link:
    """What the link keeps in the database, when it was installed."""
    if name not in database.links:
        raise Usage(f"the link {name} is not installed in the memory database {database.name}", "install it first")
    return database.links[name]


class MemorySnapshot:
    """The tables as they were when the snapshot was taken."""

    def __init__(self, view: View, lens: Lens, tables: Tables, boundary: Position) -> None:
        self.boundary = boundary
        self._view = view
        self._lens = lens
        self._tables = tables

    def blocks(self) -> Iterator[list[Row]]:
        """See ``Snapshot``."""
        rows = (
            self._lens.row(self._view, record, self._tables)
            for record in self._tables[self._view.table].records.values()
        )
        passing = (row for row in rows if passes(self._view, self._lens.schema, row))
        while block := list(islice(passing, BLOCK)):
            yield block


class MemoryFeed:
    """Reads a link's log from a place on."""

    def __init__(self, database: MemoryDatabase, link: str, views: Sequence[View], after: Position | None) -> None:
        self._database = database
        self._name = link
        self._views = _by_table(views)
        with database.changed:
            log = link_of(database, link)
            self._place = log.place(after)
            self._marker = log.marker_at(self._place)
            self._feed = log.feed

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``."""
        database = online(self._database)
        with database.changed:
            database.changed.wait_for(lambda: self._position() != self._link().end(), timeout)
            link = self._link()
            link.place(self._position())  # is it still there?
            reading = link.read(self._views, self._place, self._marker, max(limit, 1))
        self._place, self._marker = reading.place, reading.marker
        return Batch(tuple(reading.changes), self._position(), reading.marker.seen, reading.marker.number)

    def close(self) -> None:
        """See ``Feed``."""

    def _position(self) -> Position:
        commit, operation = self._place
        return Position(self._feed, (commit, operation) if operation else (commit,))

    def _link(self) -> Link:
        return link_of(online(self._database), self._name)


class MemoryTransaction:
    """One transaction of a link's own; the database's only writer as long as it is open."""

    def __init__(self, database: MemoryDatabase, link: str, lens: Lens, stream: str, views: Sequence[View]) -> None:
        self._database = database
        self._lens = lens
        self._stream = stream
        self._views = _by_table(views)
        self._remember: dict[tuple[str, str, str], str | None] = {}
        self.is_open = False
        database.begin()
        try:
            self._link = link_of(database, link)
            self._session = Session(database, link)
        except BaseException:
            database.release()
            raise
        self.is_open = True

    @property
    def number(self) -> int:
        """See ``Transaction``."""
        return self._link.number + 1

    def position(self) -> Position | None:
        """See ``Transaction``."""
        self._in_use()
        return self._link.positions.get(self._stream)

    def since(self, after: Position) -> Sequence[Change]:
        """See ``Transaction``."""
        self._in_use()
        place = self._link.place(after)
        return self._link.read(self._views, place, self._link.marker_at(place)).changes

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Transaction``."""
        self._in_use()
        return _fetch(self._lens, self._session.world.tables, view, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """See ``Transaction``."""
        self._in_use()
        return _Writing(self._session, self._lens, view, writes).outcomes()

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """See ``Transaction``."""
        self._in_use()
        self._remember[kind, view, key] = value

    def commit(self, position: Position | None) -> None:
        """See ``Transaction``.  Nobody can move the stream meanwhile, so Superseded is never raised."""
        database, link = self._in_use(), self._link
        with database.changed:
            link.number += 1
            if position is not None:
                link.seen = link.positions[self._stream] = position
            for (kind, view, key), value in self._remember.items():
                link.remember(kind, view, key, value)
            ledger = self._session.ledger
            operations = ledger.operations(self._session.world) if ledger else []
            at = database.now()
            link.log.append(Commit(at, Marker(link.number, link.seen), tuple(operations)))
            database.publish(self._session, at)
        self.rollback()

    def rollback(self) -> None:
        """End the transaction; what was not committed is gone.  Idempotent."""
        if self.is_open:
            self.is_open = False
            self._database.release()

    def __enter__(self) -> MemoryTransaction:
        return self

    def __exit__(self, *exc: object) -> None:
        self.rollback()

    def _in_use(self) -> MemoryDatabase:
        if not self.is_open:
            raise RuntimeError("the transaction has ended")
        return online(self._database)


class _Writing:
    """One ``write``: who is meant is settled first, then the rows are written, and what clashes then is taken back."""

    def __init__(self, session: Session, lens: Lens, view: View, writes: Sequence[Write]) -> None:
        self._session = session
        self._lens = lens
        self._view = view
        self._writes = writes
        self._columns = [_column(lens.schema, view, path) for path in view.paths]
        self._plain = [index for index in view.written if len(view.paths[index]) == 1]
        self._lookups = [lookup for lookup in view.lookups if set(lookup.own) <= set(view.written)]
        self._found = [_find(lens, session.world.tables, view, write.key) for write in writes]
        self._changed: dict[int, tuple[Spot, Record | None]] = {}

    def outcomes(self) -> list[Outcome]:
        """Write; again without those whose values clash, until none does."""
        refused: dict[int, Outcome] = {}
        while True:
            savepoint = self._session.savepoint()
            self._changed.clear()
            outcomes = [refused.get(number) or self._write(number) for number in range(len(self._writes))]
            clashing = self._clashing()
            if not clashing:
                return outcomes
            self._session.rollback(savepoint)
            refused |= clashing

    def _write(self, number: int) -> Outcome:
        write, found = self._writes[number], self._found[number]
        if len(found) > 1:
            reason = f"{len(found)} records of {self._view.table} hold the key {show_key(write.key)}"
            return Rejected("ambiguous", reason)
        spot = (self._view.table, found[0]) if found else None
        record = self._session.world.get(spot) if spot else None
        try:
            with self._session.statement():
                if spot is None or record is None:
                    return self._insert(number, write)
                current = self._lens.row(self._view, record, self._session.world.tables)
                if write.row is None:
                    return self._delete(spot, write, current)
                return self._update(number, write, write.row, spot, record, current)
        except Refused as refusal:
            return Rejected(refusal.code, refusal.reason)

    def _insert(self, number: int, write: Write) -> Outcome:
        if write.row is None:
            return Unchanged()
        if write.expect is not None:
            return Contested(None)
        values = self._values(write.row, None)
        if not isinstance(values, dict):
            return values
        self._changed[number] = self._session.insert(self._view.table, values, own=True), None
        return Applied()

    def _delete(self, spot: Spot, write: Write, current: Row) -> Outcome:
        if not self._expected(write.expect, current):
            return Contested(current)
        self._session.change(spot, None, {})
        return Applied()

    def _update(self, number: int, write: Write, row: Row, spot: Spot, record: Record, current: Row) -> Outcome:
        wanted = [*self._plain, *(index for lookup in self._active(row) for index in lookup.own)]
        if all(self._same(index, row[index], current[index]) for index in wanted):
            self._session.mirror(spot, record, record, {name: record[name] for name in self._touched(row)})
            return Unchanged()
        if not self._expected(write.expect, current):
            return Contested(current)
        values = self._values(row, current)
        if not isinstance(values, dict):
            return values
        values = {**{name: record[name] for name in self._touched(row)}, **values}
        self._changed[number] = spot, record
        self._session.change(spot, {**record, **values}, values)
        return Applied()

    def _values(self, row: Row, current: Row | None) -> dict[str, Value] | MissingParent | Rejected:
        """The columns to set, only those that differ from the current row, lookups as what they refer to."""
        values: dict[str, Value] = {}
        for lookup in self._active(row):
            cells = {path: self._part(index, row, current) for path, index in lookup.parts}
            if current and all(self._same(i, cells[path], current[i]) for path, i in lookup.parts):
                continue
            held = self._resolve(lookup, cells, all(row[index] in (None, "") for index in lookup.own))
            if not isinstance(held, dict):
                return held
            values.update(held)
        for index in self._plain:
            cell, column = row[index], self._columns[index]
            if cell is ABSENT or (current and self._same(index, cell, current[index])):
                continue
            if column.read_only:
                return Rejected("readonly", f"{self._view.table}.{column.name} cannot be written")
            values[column.name] = "" if cell is None and column.empty_is_null else cell
        return values

    def _resolve(
        self, lookup: Lookup, cells: dict[Path, Value], empty: bool
    ) -> dict[str, Value] | MissingParent | Rejected:
        table = self._view.table
        reference = self._lens.references[table, lookup.reference]
        if empty:
            shared = {path[0] for path in self._view.paths if len(path) == 1}
            return {
                name: "" if self._lens.columns[table, name].empty_is_null else None
                for name in reference.columns
                if name not in shared
            }
        tables = self._session.world.tables
        found = self._lens.find(tables, reference.table, cells)
        if not found:
            return MissingParent(lookup.reference, reference.table, tuple(cells.values()))
        if len(found) > 1:
            key = show_key(tuple(cells.values()))
            return Rejected("ambiguous", f"{len(found)} records of {reference.table} hold the key {key}")
        parent = tables[reference.table].records[found[0]]
        return {name: parent[held] for name, held in zip(reference.columns, reference.to, strict=True)}

    def _part(self, index: int, row: Row, current: Row | None) -> Value:
        cell = row[index]
        if cell is ABSENT and current:
            cell = current[index]
        return None if cell is ABSENT else cell

    def _active(self, row: Row) -> list[Lookup]:
        """The lookups that the row does not leave alone."""
        return [lookup for lookup in self._lookups if all(row[index] is not ABSENT for index in lookup.own)]

    def _touched(self, row: Row) -> set[str]:
        """The columns that a row speaks of."""
        references = [self._lens.references[self._view.table, lookup.reference] for lookup in self._active(row)]
        plain = {self._columns[index].name for index in self._plain if row[index] is not ABSENT}
        return plain.union(*(reference.columns for reference in references))

    def _same(self, index: int, wanted: Cell, current: Cell) -> bool:
        """Is there nothing to write?  Null and empty are one in keys and where the column says so."""
        if wanted is ABSENT or wanted == current:
            return True
        return (wanted or "") == (current or "") and self._empty_is_null(index)

    def _expected(self, expect: Row | None, current: Row) -> bool:
        """Does the record hold what was expected, as far as that is known?"""
        return expect is not None and all(
            wanted is ABSENT or cell is ABSENT or self._equal(index, wanted, cell)
            for index, (wanted, cell) in enumerate(zip(expect, current, strict=True))
        )

    def _equal(self, index: int, wanted: Value, cell: Value) -> bool:
        column = self._columns[index]
        alike = (wanted is None) == (cell is None) or self._empty_is_null(index)
        return alike and fold(column, wanted) == fold(column, cell)

    def _empty_is_null(self, index: int) -> bool:
        return index in self._view.key or self._columns[index].empty_is_null

    def _clashing(self) -> dict[int, Outcome]:
        """The writes to take back: their values are held by a record that was not written, or written earlier."""
        refused: dict[int, Outcome] = {}
        table = self._lens.schema.tables[self._view.table]
        for columns in table.uniques if not table.primary_key else (table.primary_key, *table.uniques):
            reason = f"another {table.name} holds this {', '.join(columns)}"
            refused |= self._clashing_by(partial(self._session.clashes, columns), reason)
        return refused | self._clashing_by(self._key_clashes, f"another {table.name} holds this key")

    def _clashing_by(self, clashes: Callable[[Spot, Record | None], list[int]], reason: str) -> dict[int, Outcome]:
        found = {number: clashes(spot, old) for number, (spot, old) in self._changed.items()}
        contenders = {self._changed[number][0][1]: number for number, others in found.items() if others}
        return {
            number: Rejected("unique", reason)
            for number, others in found.items()
            if any(contenders.get(other, -1) < number for other in others)
        }

    def _key_clashes(self, spot: Spot, old: Record | None) -> list[int]:
        tables = self._session.world.tables
        record = self._session.world.get(spot)
        if record is None:
            return []
        key = key_of(self._view, self._lens.row(self._view, record, tables))
        if old is not None and key == key_of(self._view, self._lens.row(self._view, old, tables)):
            return []
        return [number for number in _find(self._lens, tables, self._view, key) if number != spot[1]]


def _fetch(lens: Lens, tables: Tables, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
    records = tables[view.table].records
    found = {key: [lens.row(view, records[n], tables) for n in _find(lens, tables, view, key)] for key in keys}
    return {key: rows for key, rows in found.items() if rows}


def _find(lens: Lens, tables: Tables, view: View, key: Key) -> list[int]:
    return lens.find(tables, view.table, {view.paths[i]: value for i, value in zip(view.key, key, strict=True)})


def _by_table(views: Sequence[View]) -> dict[str, list[View]]:
    tables: dict[str, list[View]] = {}
    for view in views:
        tables.setdefault(view.table, []).append(view)
    return tables


def _column(schema: Schema, view: View, path: Path) -> Column:
    column = schema.resolve(view.table, path)
    if column is None:
        raise Usage(f"view {view.name}: {view.table} has no {show_path(path)}", "run `dualwrite check`")
    return column


def passes(view: View, schema: Schema, row: Row) -> bool:
    """Does a row pass the view's filter?"""
    return view.filter is None or _holds(view.filter, view, schema, row)


def _holds(expression: Expression, view: View, schema: Schema, row: Row) -> bool:
    match expression:
        case And(parts):
            return all(_holds(part, view, schema, row) for part in parts)
        case Or(parts):
            return any(_holds(part, view, schema, row) for part in parts)
        case Not(part):
            return not _holds(part, view, schema, row)
        case OneOf(column, literals):
            parts = tuple(Compare("eq", column, literal) for literal in literals)
            return any(_holds(part, view, schema, row) for part in parts)
        case Compare(sign, column, literal):
            cell = row[view.paths.index(column.path)]
            return cell is not ABSENT and _compare(sign, _column(schema, view, column.path), cell, literal.value)
        case _:
            assert_never(expression)


def _compare(sign: str, column: Column, cell: Value, literal: Value) -> bool:
    if column.empty_is_null:
        cell, literal = cell or None, literal or None
    if literal is None or cell is None:
        return (sign == "eq" and cell is literal) or (sign == "ne" and literal is None and cell is not None)
    left, right = _comparable(column, cell), _comparable(column, literal)
    if type(left) is not type(right):
        left, right = cell, literal
    return _OPERATORS[sign](left, right)


def _comparable(column: Column, value: str) -> Decimal | str:
    if column.type.name in (TypeName.INTEGER, TypeName.NUMERIC, TypeName.FLOAT, TypeName.CHOICE):
        try:
            return Decimal(value)
        except InvalidOperation:
            return value
    return fold(column, value)


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "contains": lambda text, part: str(part) in str(text),
    "startswith": lambda text, part: str(text).startswith(str(part)),
    "endswith": lambda text, part: str(text).endswith(str(part)),
}
