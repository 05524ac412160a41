"""The systems of the oracle's world as PostgreSQL databases.

A user's commit carries the time that the program says: an application's own replication origin may set it, and what
other replications write is a user's change like any other.  Users really work beside the engine: what they do while a
transaction of the engine is open commits before it, unless they would have to wait for one of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from dualwrite.connectors._pg_session import TEXT, Connection, is_usable
from dualwrite.connectors._pg_session import Database as Reach
from dualwrite.connectors.base import Connector, Feed, Remembered
from dualwrite.connectors.memory import Action, Refused
from dualwrite.connectors.postgresql import PostgresqlConnector
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.errors import Usage
from dualwrite.model import Position, Side, Value
from dualwrite.schema import Column, Schema, Table, TypeName, View
from dualwrite.testing.postgresql import Database, Server

from .oracle_sqlite import SqliteSystem
from .oracle_world import System, Waits

LINK = "link"
BEFORE_LINKS = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
REFUSAL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF (coalesce(NEW, OLD)).code = TG_ARGV[0] AND current_setting('application_name') LIKE 'dualwrite%' THEN
    RAISE EXCEPTION 'not now' USING ERRCODE = 'check_violation';
  END IF;
  RETURN coalesce(NEW, OLD);
END $$"""
TRACES = r"""
SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'dualwrite%'
UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin, pg_database
    WHERE datname = current_database() AND roname = 'dualwrite_link_' || oid
UNION ALL SELECT 'identity of ' || relname FROM pg_class WHERE oid >= 16384 AND relkind = 'r' AND relreplident <> 'd'
"""


_RESET = (
    "CLOSE ALL",
    "RESET ALL",
    "UNLISTEN *",
    "SELECT pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)
"""What DISCARD ALL does, except that statements stay prepared: the product knows which are."""


class Sessions:
    """Sessions that are used again, each as good as new: a fresh one has to learn the server's catalog first."""

    close_returns = True  # what psycopg looks for: closing brings a session back

    def __init__(self) -> None:
        """None yet."""
        self._free: list[Connection] = []

    def take(self, make: Callable[[], Connection]) -> Connection:
        """One of them, or another one."""
        while self._free:
            session = self._free.pop()
            if is_usable(session):
                return session
        session = make()
        session._pool = self  # type: ignore[attr-defined]
        return session

    def putconn(self, session: Connection) -> None:
        """Called when somebody closes a session; one in any state is ended."""
        if session.info.transaction_status == TransactionStatus.IDLE:
            for what in _RESET:
                session.execute(what)
            session.execute(
                "SELECT pg_replication_origin_session_reset() WHERE pg_replication_origin_session_is_setup()"
            )
            self._free.append(session)
        else:
            self._end(session)

    @staticmethod
    def _end(session: Connection) -> None:
        session._pool = None  # type: ignore[attr-defined]
        session.close()

    def close(self) -> None:
        """End them."""
        while self._free:
            self._end(self._free.pop())


@dataclass(frozen=True)
class Reached(Reach):
    """A database as the product reaches it, with sessions that are used again."""

    sessions: Sessions

    def connect(self, *, replication: bool = False) -> Connection:
        """See ``Database``."""
        if replication:
            return super().connect(replication=True)
        return self.sessions.take(super().connect)


class PostgresqlUser:
    """One user's transaction; values are text, as everywhere."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """A connection with an open transaction."""
        self._connection = connection
        self.has_written = False

    def _run(self, sql: str, values: Sequence[Value]) -> int:
        self.has_written = True
        try:
            with self._connection.transaction():
                return self._connection.execute(sql.encode(), values).rowcount
        except psycopg.errors.IntegrityError as error:
            raise Refused("value", str(error)) from error

    def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add a record."""
        names, places = ", ".join(values), ", ".join(["%s"] * len(values))
        self._run(f"INSERT INTO {table} ({names}) VALUES ({places})", [*values.values()])

    def update(self, table: str, match: Mapping[str, Value], values: Mapping[str, Value]) -> int:
        """Change records."""
        if not values:
            return 0
        changes = ", ".join(f"{name} = %s" for name in values)
        return self._run(f"UPDATE {table} SET {changes}{_where(match)}", [*values.values(), *match.values()])

    def delete(self, table: str, match: Mapping[str, Value]) -> int:
        """Delete records."""
        return self._run(f"DELETE FROM {table}{_where(match)}", [*match.values()])

    def rows(self, table: str, match: Mapping[str, Value] | None = None) -> list[Mapping[str, Value]]:
        """Look."""
        sql = f"SELECT * FROM {table}{_where(match or {})}"
        found = self._connection.execute(sql.encode(), [*(match or {}).values()])
        names = [column.name for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found]


def _where(match: Mapping[str, Value]) -> str:
    return " WHERE " + " AND ".join(f"{name} IS NOT DISTINCT FROM %s" for name in match) if match else ""


class Desk:
    """A database that one world after the other uses, and its users' session."""

    def __init__(self, database: Database) -> None:
        """Open the session; its transactions are those of an origin."""
        self.database = database
        self.sessions = Sessions()
        reach = Reach.of(database.url, LINK)
        self.reach = Reached(reach.parameters, reach.shown, reach.link, self.sessions)
        options = "-c timezone=UTC"
        self.users = psycopg.connect(
            database.url, autocommit=True, context=TEXT, options=options, prepare_threshold=None
        )
        name = f"users_{database.name}"
        self.users.execute("SELECT pg_replication_origin_create(%s)", [name])
        self.users.execute("SELECT pg_replication_origin_session_setup(%s)", [name])

    def close(self) -> None:
        """End the session."""
        self.users.close()
        self.sessions.close()
        self.database.run("SELECT pg_replication_origin_drop(%s)", f"users_{self.database.name}")


class PostgresqlSystem:
    """A database, with foreign keys where a reference has an action; the other references are declared."""

    def __init__(
        self,
        desk: Desk,
        done: Callable[[Desk], None],
        side: Side,
        schema: Schema,
        actions: Mapping[tuple[str, str], Action],
        clock: Callable[[], float],
    ) -> None:
        """Empty, with these actions of its references; ``done`` takes the desk back."""
        self.schema = schema
        self._desk, self._done, self._side, self._clock = desk, done, side, clock
        self._declared = Declared(
            {table.name: DeclaredTable(table.name, references=table.references) for table in schema.tables.values()}
        )
        self._live: PostgresqlConnector | None = None
        self._looker = self._open()
        self._is_guarded = False
        tables = [
            _create(table, {name: way for (of, name), way in actions.items() if of == table.name})
            for table in schema.tables.values()
        ]
        keys = [key for table in schema.tables.values() for key in _foreign_keys(table, actions)]
        self._desk.users.execute(";".join([BEFORE_LINKS, REFUSAL, *tables, *keys]).encode())

    def _open(self) -> PostgresqlConnector:
        connector = PostgresqlConnector(self._desk.reach, self._side, self._declared, "public")
        connector.clock = self._clock  # type: ignore[method-assign]  # the world's clock, not the server's
        return connector

    def connector(self) -> Connector:
        """See ``System``: the sessions of the one before end with it."""
        if self._live is not None:
            self._live.close()
        self._live = self._open()
        return self._live

    def watcher(self) -> PostgresqlWatcher:
        """See ``System``."""
        return PostgresqlWatcher(self)

    @contextmanager
    def user(self, at: float) -> Iterator[PostgresqlUser]:
        """See ``System``."""
        session = self._desk.users
        session.execute("BEGIN")
        if self._is_writing():  # in this very thread
            session.execute("SET LOCAL lock_timeout = '10ms'")
        user = PostgresqlUser(session)
        try:
            yield user
            if user.has_written:
                session.execute("SELECT pg_replication_origin_xact_setup('0/1', to_timestamp(%s))", [at])
                session.execute("COMMIT")
        except psycopg.errors.LockNotAvailable as error:
            raise Waits from error
        finally:
            session.execute("ROLLBACK") if session.info.transaction_status else None

    def _is_writing(self) -> bool:
        """Is a transaction of the engine open?"""
        return self._live is not None and self._live._writer._turn.locked()

    def busy(self) -> bool:
        """See ``System``: nobody waits for a transaction as such."""
        return False

    def refuse(self, code: str | None, engine: Callable[[], bool]) -> None:
        """See ``System``."""
        table = "item" if self._side is Side.LEFT else "thing"
        if self._is_guarded:
            self._desk.database.run(f"DROP TRIGGER refusal ON {table}")
        self._is_guarded = code is not None
        if code is not None:
            events = "BEFORE INSERT OR UPDATE OR DELETE"
            self._desk.database.run(
                f"CREATE TRIGGER refusal {events} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse('{code}')"
            )

    def fill(self, column: str) -> None:
        """A trigger on right-hand items: ``column`` is filled from ``a`` whenever that is set."""
        self._desk.database.run(
            f"""CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              UPDATE thing SET {column} = 't' || coalesce(NEW.a, '') WHERE id = NEW.id; RETURN NULL; END $$;
            CREATE TRIGGER filled AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION fill();
            CREATE TRIGGER refilled AFTER UPDATE OF a ON thing FOR EACH ROW
              WHEN (NEW.a IS DISTINCT FROM OLD.a) EXECUTE FUNCTION fill()"""
        )

    def close(self) -> None:
        """Clean up: nothing of the link is left."""
        if self._live is not None:
            self._live.close()
        self._looker.uninstall()
        self._looker.close()
        traces = self._desk.database.run(TRACES)
        assert not traces, traces
        self._done(self._desk)


class PostgresqlWatcher:
    """Looks at the database through the engine's connector where a stream is needed: there is one of a slot."""

    def __init__(self, system: PostgresqlSystem) -> None:
        """Watch a system."""
        self._system = system

    def end(self) -> Position:
        """See ``Connector``; a null place where nothing is installed."""
        live = self._system._live
        try:
            return Position("", ()) if live is None else live.end()
        except Usage:
            return Position("", ())

    def feed(self, views: Sequence[View], after: Position | None) -> Feed:
        """See ``Connector``."""
        assert self._system._live is not None, "there is an end, so there was an engine"
        return self._system._live.feed(views, after)

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        return self._system._looker.positions()

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """See ``Connector``."""
        return self._system._looker.remembered(kind)


class PostgresqlWorlds:
    """Makes systems on a server; databases are used again and again."""

    def __init__(self, server: Server) -> None:
        """Use a running server."""
        self._server = server
        self._stack = ExitStack()
        self._free: list[Desk] = []

    def _desk(self) -> Desk:
        if not self._free:
            desk = Desk(self._stack.enter_context(self._server.database()))
            self._stack.callback(desk.close)
            return desk
        return self._free.pop()

    def both(
        self, side: Side, schema: Schema, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
    ) -> System:
        """A PostgreSQL database, whichever side it is."""
        return PostgresqlSystem(self._desk(), self._free.append, side, schema, actions, clock)

    def left(
        self, side: Side, schema: Schema, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
    ) -> System:
        """PostgreSQL on the left, a SQLite file on the right."""
        make = self.both if side is Side.LEFT else SqliteSystem
        return make(side, schema, actions, clock)

    def right(
        self, side: Side, schema: Schema, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
    ) -> System:
        """A SQLite file on the left, PostgreSQL on the right."""
        make = self.both if side is Side.RIGHT else SqliteSystem
        return make(side, schema, actions, clock)

    def close(self) -> None:
        """Let go of the databases."""
        self._stack.close()


def _create(table: Table, actions: Mapping[str, Action]) -> str:
    parts = [_column(column) for column in table.columns]
    for columns in table.uniques:
        what = "PRIMARY KEY" if columns == table.primary_key else "UNIQUE"
        parts.append(f"{what} ({', '.join(columns)})")
    return f"CREATE TABLE {table.name} ({', '.join(parts)})"


def _foreign_keys(table: Table, actions: Mapping[tuple[str, str], Action]) -> Iterator[str]:
    for reference in table.references:
        action = actions.get((table.name, reference.name))
        if action is not None:
            leads = f"FOREIGN KEY ({', '.join(reference.columns)}) REFERENCES {reference.table}"
            only = f" ({reference.name})" if action == "set null" else ""  # not the company, which is a part of the key
            to = ", ".join(reference.to)
            yield f"ALTER TABLE {table.name} ADD {leads} ({to}) ON DELETE {action}{only}"


def _column(column: Column) -> str:
    if column.name == "id":
        return "id bigint GENERATED BY DEFAULT AS IDENTITY"
    kind = "bigint" if column.type.name is TypeName.INTEGER else "text"
    return f"{column.name} {kind}{'' if column.nullable else ' NOT NULL'}"
