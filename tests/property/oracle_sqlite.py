"""The systems of the oracle's world as SQLite files."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from dualwrite.connectors.base import Connector
from dualwrite.connectors.memory import Action, Refused
from dualwrite.connectors.sqlite import SqliteConnector, open_sqlite
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.model import Side, Value
from dualwrite.schema import Column, Schema, Table, TypeName

DAY, EPOCH = 86_400, 2_440_587.5
"""Seconds per day, and the Julian day of 1970."""


class SqliteUser:
    """One user's transaction; values are text, as everywhere."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """A connection with an open transaction."""
        self._connection = connection

    def _run(self, sql: str, values: Sequence[Value]) -> int:
        try:
            return self._connection.execute(sql, values).rowcount
        except sqlite3.IntegrityError as error:
            raise Refused("value", str(error)) from error

    def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add a record."""
        names, places = ", ".join(values), ", ".join("?" * len(values))
        self._run(f"INSERT INTO {table} ({names}) VALUES ({places})", [*values.values()])

    def update(self, table: str, match: Mapping[str, Value], values: Mapping[str, Value]) -> int:
        """Change records."""
        if not values:
            return 0
        changes = ", ".join(f"{name} = ?" for name in values)
        return self._run(f"UPDATE {table} SET {changes}{_where(match)}", [*values.values(), *match.values()])

    def delete(self, table: str, match: Mapping[str, Value]) -> int:
        """Delete records."""
        return self._run(f"DELETE FROM {table}{_where(match)}", [*match.values()])

    def rows(self, table: str, match: Mapping[str, Value] | None = None) -> list[Mapping[str, Value]]:
        """Look."""
        found = self._connection.execute(f"SELECT * FROM {table}{_where(match or {})}", [*(match or {}).values()])
        names = [column[0] for column in found.description]
        return [{n: None if c is None else str(c) for n, c in zip(names, row, strict=True)} for row in found]


def _where(match: Mapping[str, Value]) -> str:
    return " WHERE " + " AND ".join(f"{name} IS ?" for name in match) if match else ""


class SqliteSystem:
    """A database file, with foreign keys where a reference has an action; the other references are declared."""

    def __init__(
        self, side: Side, schema: Schema, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
    ) -> None:
        """Empty, with these actions of its references."""
        self.schema = schema
        self._side, self._clock = side, clock
        self._folder = tempfile.TemporaryDirectory(prefix="dualwrite-")
        self._path = Path(self._folder.name) / f"{side}.db"
        self._connectors: list[SqliteConnector] = []
        self._declared = Declared(
            {table.name: DeclaredTable(table.name, references=table.references) for table in schema.tables.values()}
        )
        self._users = sqlite3.connect(self._path, isolation_level=None)
        self._users.execute("PRAGMA journal_mode = WAL")
        self._users.execute("PRAGMA synchronous = OFF")
        self._users.execute("PRAGMA foreign_keys = ON")
        for table in schema.tables.values():
            self._users.execute(_create(table, {name: way for (of, name), way in actions.items() if of == table.name}))

    def connector(self) -> Connector:
        """See ``System``."""
        connector = open_sqlite(f"sqlite:///{self._path}", link="link", side=self._side, declared=self._declared)
        connector.clock = self._clock  # type: ignore[method-assign]  # the world's clock, not the machine's
        self._connectors.append(connector)
        return connector

    def watcher(self) -> Connector:
        """See ``System``."""
        return self.connector()

    @contextmanager
    def user(self, at: float) -> Iterator[SqliteUser]:
        """See ``System``: the triggers that capture run in the user's connection, and ask it for the time."""
        self._users.create_function("julianday", 1, lambda _: EPOCH + at / DAY)
        self._users.execute("BEGIN")
        try:
            yield SqliteUser(self._users)
            self._users.execute("COMMIT")
        finally:
            if self._users.in_transaction:
                self._users.execute("ROLLBACK")

    def busy(self) -> bool:
        """See ``System``."""
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            probe.execute("ROLLBACK")
            return False

    def refuse(self, code: str | None, engine: Callable[[], bool]) -> None:
        """See ``System``: programs for files do without it."""
        assert code is None, "a database file does not know who writes"

    def fill(self, column: str) -> None:
        """A trigger on right-hand items: ``column`` is filled from ``a`` whenever that is set."""
        work = f"BEGIN UPDATE thing SET {column} = 't' || coalesce(NEW.a, '') WHERE id = NEW.id; END"
        self._users.execute(f"CREATE TRIGGER filled AFTER INSERT ON thing {work}")
        self._users.execute(f"CREATE TRIGGER refilled AFTER UPDATE OF a ON thing WHEN NEW.a IS NOT OLD.a {work}")

    def close(self) -> None:
        """Clean up."""
        for connector in self._connectors:
            connector.close()
        self._users.close()
        self._folder.cleanup()


def _create(table: Table, actions: Mapping[str, Action]) -> str:
    parts = [_column(column) for column in table.columns]
    for columns in table.uniques:
        if columns != ("id",):
            what = "PRIMARY KEY" if columns == table.primary_key else "UNIQUE"
            parts.append(f"{what} ({', '.join(columns)})")
    for reference in table.references:
        if reference.name in actions:
            leads = f"FOREIGN KEY ({', '.join(reference.columns)}) REFERENCES {reference.table}"
            parts.append(f"{leads} ({', '.join(reference.to)}) ON DELETE {actions[reference.name]}")
    return f"CREATE TABLE {table.name} ({', '.join(parts)})"


def _column(column: Column) -> str:
    if column.name == "id":
        return "id INTEGER PRIMARY KEY AUTOINCREMENT"
    kind = "INTEGER" if column.type.name is TypeName.INTEGER else "TEXT"
    return f"{column.name} {kind}{'' if column.nullable else ' NOT NULL'}"
