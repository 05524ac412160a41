"""The PostgreSQL connector: versions 15 to 18, captured from the write-ahead log.

It installs capture (``_pg_capture``), reads snapshots, follows the write-ahead log (``_pg_feed``) and writes
(``_pg_write``).  Each snapshot, feed, installation and examination has a session of its own, and so have the stream of
the log and the transactions; everything else that only reads shares one.  All state is in the database: a crash needs
no cleaning up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import RLock
from typing import Final

from dualwrite.connectors._pg_capture import Capture, refuse_standby
from dualwrite.connectors._pg_catalog import Question, are_current, read_catalog
from dualwrite.connectors._pg_ddl import by_hand
from dualwrite.connectors._pg_echo import Wrote, loud_tables
from dualwrite.connectors._pg_feed import PostgresqlFeed, Source, begin_read
from dualwrite.connectors._pg_health import inspect
from dualwrite.connectors._pg_installed import Names, installation, read_slot
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_session import Connection, Database, is_usable
from dualwrite.connectors._pg_statements import Targets
from dualwrite.connectors._pg_transaction import PostgresqlTransaction, Work, Writer, positions, remembered
from dualwrite.connectors._pg_trip import Answer
from dualwrite.connectors._pg_view import Plans, ViewPlan
from dualwrite.connectors._pg_write import BEGINNING, RowWriter
from dualwrite.connectors._sql import needs
from dualwrite.connectors.base import Capabilities, Installation, Remembered
from dualwrite.declared import Declared, complete
from dualwrite.errors import Problem, Usage
from dualwrite.model import Applied, Batch, Key, Outcome, Position, Row, Side, Write
from dualwrite.schema import Schema, View

_SCHEMA: Final = b"SELECT FROM pg_namespace WHERE nspname = $1"
BLOCK = 1000
"""Rows per block of a snapshot."""


def open_postgresql(
    url: str, *, link: str, side: Side, declared: Declared | None = None, schema: str | None = None
) -> PostgresqlConnector:
    """The connector for ``postgresql://user@host:port/database``.  Connects to nothing yet.

    ``schema`` is the one whose tables maps write by their plain names, ``public`` unless said otherwise.
    """
    return PostgresqlConnector(Database.of(url, link), side, declared, schema)


@dataclass(frozen=True)
class Scene:
    """What a transaction for some views goes by: the catalog, whether it still holds, and what others may do besides.

    ``loud`` are the tables where they may, and ``is_quiet`` says that nobody will want to know what is written.
    """

    catalog: Catalog
    question: Question
    loud: frozenset[str]
    is_quiet: bool

    @classmethod
    def of(cls, catalog: Catalog, views: Sequence[View]) -> Scene:
        """The scene of views in a catalog."""
        loud = loud_tables(catalog, views)
        is_quiet = not loud and all(len(path) == 1 for view in views for path in view.paths)
        return cls(catalog, Question(catalog.facts[name] for name in needs(catalog.schema, views)), loud, is_quiet)


class PostgresqlConnector:
    """A link's access to a PostgreSQL database.  See ``Connector`` for what each method promises."""

    capabilities = Capabilities(exclusive=False)

    def __init__(self, database: Database, side: Side, declared: Declared | None, schema: str | None) -> None:
        """Bind a database to a link; nothing is connected before it is needed."""
        self._database = database
        self._side = side
        self._declared = declared
        self._schema = schema
        self._catalog: Catalog | None = None
        self._plans = Plans()
        self._scenes: dict[tuple[View, ...], Scene] = {}
        self._reading = RLock()
        self._reader: Connection | None = None
        self._names: Names | None = None
        self._source = Source(database, self._known_to, self._load)
        self._targets = Targets(self._plans)
        self._writer = Writer(database)

    @property
    def link(self) -> str:
        """The name of the link, which its sessions and whatever it creates bear."""
        return self._database.link

    # -- sessions -------------------------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """The shared session for reading, in autocommit mode; a new one where the last was broken."""
        with self._reading, self._database.errors():
            if self._reader is None or not is_usable(self._reader):
                self._reader = self._database.connect()
            yield self._reader

    def _named(self, connection: Connection) -> Names:
        """What the link's objects are called in the database."""
        if self._names is None:
            self._names = Names.of(connection, self.link)
        return self._names

    def _load(self, connection: Connection) -> Catalog:
        """What the database holds now, completed by what was declared."""
        if self._schema is not None and connection.execute(_SCHEMA, [self._schema]).fetchone() is None:
            message = f"{self._side}: {self._database.shown} has no schema {self._schema!r}"
            raise Usage(message, f"correct schema: of {self._side} in dualwrite.yaml, or create it")
        catalog = read_catalog(connection, self._schema or "public")
        if self._declared is not None:
            schema, _ = complete(catalog.schema, self._declared)
            catalog = Catalog(schema, catalog.facts, catalog.names)
        self._catalog = catalog
        return catalog

    def _known(self, connection: Connection, tables: Iterable[str]) -> Catalog:
        """What the database holds, read again where one of these tables is not what it was."""
        catalog, names = self._catalog, set(tables)
        if catalog is None or not names <= catalog.facts.keys():
            return self._load(connection)
        is_current = are_current(connection, [catalog.facts[name] for name in names])
        return catalog if is_current else self._load(connection)

    def _known_to(self, connection: Connection, views: Sequence[View]) -> Catalog:
        """The same for the tables that views look at."""
        catalog = self._catalog
        if catalog is not None:
            with suppress(Usage):  # what the views name may have come since
                return self._known(connection, needs(catalog.schema, views))
        return self._load(connection)

    def _scene(self, connection: Connection, views: tuple[View, ...]) -> Scene:
        """What these views mean by the catalog that was read last, which may have changed since."""
        scene = self._scenes.get(views)
        if scene is None or scene.catalog is not self._catalog:
            scene = self._scenes[views] = Scene.of(self._known_to(connection, views), views)
        return scene

    def _plan(self, connection: Connection, view: View) -> ViewPlan:
        """The plan of a view, as its tables are now."""
        catalog = self._catalog
        if catalog is not None and view.table in catalog.facts:
            catalog = self._known(connection, self._plans.get(catalog, view).tables)
            return self._plans.get(catalog, view)
        return self._plans.get(self._load(connection), view)

    # -- what the system is ---------------------------------------------------------------------------------------

    def identity(self) -> str:
        """See ``Connector``: the cluster's identifier and the database's number in it, and how the URL reaches it."""
        with self._read() as connection:
            row = connection.execute(
                "SELECT s.system_identifier, d.oid FROM pg_control_system() s, pg_database d "
                "WHERE d.datname = current_database()"
            ).fetchone()
        assert row is not None
        return f"postgresql:{row[0]}.{row[1]}@{self._database.place}"

    def installation(self) -> Installation:
        """See ``Connector``."""
        with self._read() as connection:
            return installation(connection, Names.of(connection, self.link))

    def schema(self) -> Schema:
        """See ``Connector``."""
        with self._read() as connection:
            return self._load(connection).schema

    def clock(self) -> float:
        """See ``Connector``; a standby is no system that the link could work with, whatever it tells."""
        with self._read() as connection:
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp()), pg_is_in_recovery()").fetchone()
        assert row is not None
        refuse_standby(self._database, row[1] == "t")
        return float(row[0])

    def health(self, views: Sequence[View]) -> list[Problem]:
        """See ``Connector``."""
        return inspect(self._database, self._side, views, lambda session: self._known_to(session, views))

    # -- capture --------------------------------------------------------------------------------------------------

    def install(self, views: Sequence[View]) -> None:
        """See ``Connector``.

        Raises Denied where the tables' owner has to run something first, PositionLost, though everything is installed,
        when changes may have been missed.
        """
        try:
            Capture(self._database).install(lambda session: self._known_to(session, views), views)
        finally:
            self._source.renew()

    def uninstall(self) -> None:
        """See ``Connector``.  Raises Denied where the tables' owner has to run something."""
        self._source.close()
        Capture(self._database).uninstall()

    def by_hand(self) -> str:
        """See ``Connector``."""
        return by_hand(self.link)

    # -- reading --------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self, view: View, *, placed: bool = True) -> Iterator[PostgresqlSnapshot]:
        """See ``Connector``."""
        connection = self._database.connect()
        try:
            with self._database.errors():
                plan = self._plan(connection, view)
                boundary = self._source.begin_snapshot(connection) if placed else begin_read(connection)
            yield PostgresqlSnapshot(self._database, connection, plan, boundary)
        finally:
            connection.close()

    def end(self) -> Position:
        """See ``Connector``."""
        return self._source.end()

    def feed(self, views: Sequence[View], after: Position | None) -> PostgresqlFeed:
        """See ``Connector``."""
        return PostgresqlFeed(self._source, self._database, views, after)

    def acknowledge(self, position: Position) -> None:
        """See ``Connector``."""
        self._source.acknowledge(position)

    def retained(self) -> int:
        """See ``Connector``: what the slot keeps of the server's log, whichever database wrote it."""
        with self._read() as connection:
            slot = read_slot(connection, Names.of(connection, self.link))
        return slot.retained if slot is not None else 0

    def confirmed(self) -> int:
        """See ``Connector``."""
        return self._source.confirmed()

    def let_go(self) -> Position | None:
        """See ``Connector``."""
        return self._source.let_go()

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Connector``."""
        with self._read() as connection:
            return self._plan(connection, view).fetch(connection, keys)

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        with self._read() as connection:
            return positions(connection, self._named(connection))

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """See ``Connector``."""
        with self._read() as connection:
            yield from remembered(connection, self._named(connection), kind)

    # -- writing --------------------------------------------------------------------------------------------------

    def transaction(
        self, stream: str, views: Sequence[View] = (), known: Position | None = None
    ) -> PostgresqlTransaction:
        """See ``Connector``."""

        def work(connection: Connection, horizon: int | None, ours: MutableSequence[str]) -> Work:
            scene = self._scene(connection, tuple(views))
            loud = scene.loud
            rows = RowWriter(
                connection, self._database, scene.catalog, self._targets, horizon=horizon, loud=loud, ours=ours
            )

            def since(after: Position, limit: int) -> Batch:
                return self._source.since(views, after, limit)

            def wrote() -> Wrote | None:
                return Wrote(loud, rows.ledger.written) if loud else None

            def doubts() -> bool:
                return rows.ledger.has_doubts

            def is_current(answer: Answer) -> bool:
                is_same = scene.question.is_answered(answer)
                if not is_same:
                    self._scenes.clear()
                return is_same

            return Work(
                since,
                rows.fetch,
                rows.write,
                wrote,
                doubts,
                BEGINNING,
                scene.question.asked,
                is_current,
                rows.insert,
                scene.is_quiet,
            )

        return self._writer.begin(stream, work, known)

    def edit(self, view: View, write: Write) -> Outcome:
        """See ``Connector``: a session without the link's origin is a user's."""
        connection = self._database.connect()
        try:
            with self._database.errors():
                catalog = self._known_to(connection, [view])
                connection.execute("BEGIN")
                for statement in BEGINNING:
                    connection.execute(statement)
                (outcome,) = RowWriter(connection, self._database, catalog, self._targets).write(view, [write])
                connection.execute("COMMIT" if isinstance(outcome, Applied) else "ROLLBACK")
        finally:
            connection.close()
        return outcome

    def close(self) -> None:
        """See ``Connector``."""
        self._source.close()
        self._writer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class PostgresqlSnapshot:
    """One consistent read of a view; see ``Snapshot``."""

    def __init__(self, database: Database, connection: Connection, plan: ViewPlan, boundary: Position) -> None:
        """The session is in a read transaction already."""
        self.boundary = boundary
        self._database = database
        self._connection = connection
        self._plan = plan

    def blocks(self) -> Iterator[Sequence[Row]]:
        """See ``Snapshot``."""
        with self._database.errors():
            yield from self._plan.blocks(self._connection, BLOCK)

    def fetch(self, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Snapshot``."""
        with self._database.errors():
            return self._plan.fetch(self._connection, keys)
