"""An in-memory system: the connector that engine tests run on, with every promise of ``base`` kept.

The database itself, with its users, triggers and log, is ``MemoryDatabase``; it outlives connectors, so a crash of
dualwrite is a connector thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from dualwrite.connectors._memory.database import Action, Backup, MemoryDatabase, Refused, Session, Trigger, User
from dualwrite.connectors._memory.log import Capture, Commit, Link, Marker
from dualwrite.connectors._memory.tables import Lens, Tables, column_at
from dualwrite.connectors._memory.writing import Writing
from dualwrite.connectors.base import NO_LIMIT, Capabilities, Installation, Remembered, refuse_schema
from dualwrite.declared import Declared, complete
from dualwrite.errors import PositionLost, Problem, Unavailable, Usage
from dualwrite.filters import compile_filter
from dualwrite.model import Applied, Batch, Key, Outcome, Position, Row, Side, Write
from dualwrite.schema import Schema, View

__all__ = [
    "Action",
    "Backup",
    "MemoryConnector",
    "MemoryDatabase",
    "Refused",
    "Trigger",
    "User",
    "open_memory",
    "register",
]

_databases: dict[str, MemoryDatabase] = {}
BLOCK = 1000
"""Rows per block of a snapshot."""


def register(database: MemoryDatabase) -> None:
    """Let ``memory://NAME`` find the database, in this process."""
    _databases[database.name] = database


def open_memory(
    url: str, *, link: str, side: Side, declared: Declared | None = None, schema: str | None = None
) -> MemoryConnector:
    """The connector for ``memory://NAME``; the database must have been registered."""
    refuse_schema(side, schema, "a memory database")
    name = url.removeprefix("memory://")
    if name not in _databases:
        raise Usage(f"{side}: there is no memory database {name!r} in this process", "register it, or use another url")
    return MemoryConnector(_databases[name], link, declared)


class MemoryConnector:
    """A link's access to a memory database."""

    capabilities = Capabilities()

    def __init__(self, database: MemoryDatabase, link: str = "link", declared: Declared | None = None) -> None:
        """Connect to the database as this link."""
        self._database = database
        self._name = link
        self._schema = complete(database.schema, declared)[0] if declared else database.schema
        self._lens = Lens(self._schema)
        self._last: MemoryTransaction | None = None

    def identity(self) -> str:
        """See ``Connector``."""
        return f"memory:{self._database.name}"

    def installation(self) -> Installation:
        """See ``Connector``."""
        return Installation((f"link {self._name}",) if self._name in self._online().links else ())

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

    def by_hand(self) -> str:
        """See ``Connector``."""
        return ""

    @contextmanager
    def snapshot(self, view: View, *, placed: bool = True) -> Iterator[MemorySnapshot]:  # noqa: ARG002 (it costs nothing)
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            tables, boundary = database.tables, self.end()
        yield MemorySnapshot(view, self._lens, tables, boundary)

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
            link_of(database, self._name, position).trim(position)

    def retained(self) -> int:
        """See ``Connector``: as long as the log is when it is spelled out."""
        database = self._online()
        with database.changed:
            link = database.links.get(self._name)
            return sum(len(repr(commit)) for commit in link.log) if link else 0

    def confirmed(self) -> int:
        """See ``Connector``: whatever is in the log is complete."""
        return 0

    def let_go(self) -> Position | None:
        """See ``Connector``."""
        link = self._online().links.get(self._name)
        return Position(link.feed, (link.lost,)) if link and link.lost else None

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Connector``."""
        return _fetch(self._lens, self._online().tables, view, keys)

    def transaction(
        self,
        stream: str,
        views: Sequence[View] = (),
        known: Position | None = None,  # noqa: ARG002 (nobody else commits meanwhile)
    ) -> MemoryTransaction:
        """See ``Connector``."""
        self._last = MemoryTransaction(self._online(), self._name, self._lens, stream, views)
        return self._last

    def edit(self, view: View, write: Write) -> Outcome:
        """See ``Connector``."""
        database = self._online()
        database.begin()
        try:
            session = Session(database)
            (outcome,) = Writing(session, self._lens, view, [write]).outcomes()
            if isinstance(outcome, Applied):
                with database.changed:
                    database.publish(session, database.now())
        finally:
            database.release()
        return outcome

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            link = database.links.get(self._name)
            return {s: (position, link.number) for s, position in link.positions.items()} if link else {}

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """See ``Connector``."""
        database = self._online()
        with database.changed:
            link = database.links.get(self._name)
            entries = [*link.gone, *link.kept.values()] if link else []
        return iter([entry for entry in entries if entry.kind == kind])

    def clock(self) -> float:
        """See ``Connector``."""
        return self._online().now()

    def close(self) -> None:
        """Roll back what is open, as a database does when its client is gone."""
        if self._last:
            self._last.rollback()

    def _online(self) -> MemoryDatabase:
        return online(self._database)


def online(database: MemoryDatabase) -> MemoryDatabase:
    """The database, when it answers."""
    if database.offline:
        raise Unavailable(f"the memory database {database.name} is offline", "it is tried again by itself")
    return database


def link_of(database: MemoryDatabase, name: str, position: Position | None = None) -> Link:
    """What the link keeps in the database, when it was installed; otherwise a position that it once had is lost."""
    if name not in database.links:
        if position:
            raise PositionLost(f"{position}: the link {name} was removed from {database.name}", "start it anew")
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
        view, lens = self._view, self._lens
        passes = compile_filter(view.filter, lambda path: (view.paths.index(path), column_at(lens.schema, view, path)))
        rows = (lens.row(view, record, self._tables) for record in self._tables[view.table].records.values())
        passing = filter(passes, rows)
        while block := list(islice(passing, BLOCK)):
            yield block

    def fetch(self, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Snapshot``."""
        return _fetch(self._lens, self._tables, self._view, keys)


class MemoryFeed:
    """Reads a link's log from a place on."""

    def __init__(self, database: MemoryDatabase, link: str, views: Sequence[View], after: Position | None) -> None:
        self._database = database
        self._name = link
        self._views = _by_table(views)
        with database.changed:
            log = link_of(database, link, after)
            self._place = log.place(after)
            self._marker = log.marker_at(self._place)
            self._feed = log.feed

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``."""
        database = online(self._database)
        with database.changed:
            database.changed.wait_for(lambda: self._position() != self._link().end(), timeout)
            link = self._link()
            place = link.place(self._position())
            marker = self._marker if place == self._place else link.marker_at(place)  # what lay between is trimmed
            reading = link.read(self._views, place, marker, max(limit, 1))
        self._place, self._marker = reading.place, reading.marker
        return reading.batch(self._feed)

    def close(self) -> None:
        """See ``Feed``."""

    def _position(self) -> Position:
        commit, operation = self._place
        return Position(self._feed, (commit, operation) if operation else (commit,))

    def _link(self) -> Link:
        return link_of(online(self._database), self._name, self._position())


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
        self._number = self._link.number + 1
        self.is_open = True

    @property
    def number(self) -> int:
        """See ``Transaction``."""
        return self._number

    def position(self) -> Position | None:
        """See ``Transaction``."""
        self._in_use()
        return self._link.positions.get(self._stream)

    def since(self, after: Position, limit: int = NO_LIMIT) -> Batch:
        """See ``Transaction``."""
        self._in_use()
        with self._database.changed:
            place = self._link.place(after)
            reading = self._link.read(self._views, place, self._link.marker_at(place))
        batch = reading.batch(self._link.feed)
        if len(batch.changes) <= limit:
            return batch
        last = batch.changes[limit - 1]
        return Batch(batch.changes[:limit], last.position, last.seen, last.mark)

    def may_be_overtaken(self) -> bool:
        """See ``Transaction``: nobody asks, for nobody else commits meanwhile."""
        return True

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Transaction``."""
        self._in_use()
        return _fetch(self._lens, self._session.world.tables, view, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """See ``Transaction``."""
        self._in_use()
        return Writing(self._session, self._lens, view, writes).outcomes()

    def insert(self, view: View, rows: Sequence[Row]) -> bool:  # noqa: ARG002
        """See ``Transaction``: there is no quicker way than ``write``."""
        return False

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """See ``Transaction``."""
        self._in_use()
        self._remember[kind, view, key] = value

    def commit(self, position: Position | None) -> None:
        """See ``Transaction``.  Nobody can move the stream meanwhile, so Superseded is never raised."""
        database, link = self._in_use(), self._link
        ledger = self._session.ledger
        operations = ledger.operations(self._session.world) if ledger else []
        with database.changed:
            link.number += 1
            if position is not None:
                link.seen = link.positions[self._stream] = position
            for (kind, view, key), value in self._remember.items():
                link.remember(kind, view, key, value)
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


def _fetch(lens: Lens, tables: Tables, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
    records = tables[view.table].records
    found = {key: [lens.row(view, records[n], tables) for n in lens.find_key(tables, view, key)] for key in keys}
    return {key: rows for key, rows in found.items() if rows}


def _by_table(views: Sequence[View]) -> dict[str, list[View]]:
    tables: dict[str, list[View]] = {}
    for view in views:
        tables.setdefault(view.table, []).append(view)
    return tables
